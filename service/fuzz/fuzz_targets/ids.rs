//! The fuzz target `ids`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(IDS);
