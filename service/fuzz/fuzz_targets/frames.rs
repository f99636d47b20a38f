//! The fuzz target `frames`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(FRAMES);
