//! The fuzz target `client_message`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(CLIENT_MESSAGE);
