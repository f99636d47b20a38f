//! The fuzz target `deflate`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(DEFLATE);
