//! The fuzz target `claims`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(CLAIMS);
