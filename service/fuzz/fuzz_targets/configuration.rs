//! The fuzz target `configuration`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(CONFIGURATION);
