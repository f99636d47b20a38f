//! The fuzz target `subject`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(SUBJECT);
