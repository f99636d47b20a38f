//! The fuzz target `nats_progress`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(NATS_PROGRESS);
