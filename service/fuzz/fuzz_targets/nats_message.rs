//! The fuzz target `nats_message`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(NATS_MESSAGE);
