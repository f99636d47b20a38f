//! The fuzz target `inflate`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(INFLATE);
