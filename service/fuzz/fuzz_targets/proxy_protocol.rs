//! The fuzz target `proxy_protocol`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(PROXY_PROTOCOL);
