//! The fuzz target `redis_value`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(REDIS_VALUE);
