//! The fuzz target `extensions`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(EXTENSIONS);
