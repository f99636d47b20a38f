//! The fuzz target `origin`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(ORIGIN);
