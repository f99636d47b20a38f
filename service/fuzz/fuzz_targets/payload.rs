//! The fuzz target `payload`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(PAYLOAD);
