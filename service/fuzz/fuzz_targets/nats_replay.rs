//! The fuzz target `nats_replay`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(NATS_REPLAY);
