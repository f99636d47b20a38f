//! The fuzz target `grpc_message`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(GRPC_MESSAGE);
