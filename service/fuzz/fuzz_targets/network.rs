//! The fuzz target `network`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(NETWORK);
