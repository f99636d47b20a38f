//! The fuzz target `grpc_proof`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(GRPC_PROOF);
