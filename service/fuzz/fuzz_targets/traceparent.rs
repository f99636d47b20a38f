//! The fuzz target `traceparent`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(TRACEPARENT);
