//! The fuzz target `socket`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(SOCKET);
