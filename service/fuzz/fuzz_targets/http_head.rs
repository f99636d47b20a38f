//! The fuzz target `http_head`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(HTTP_HEAD);
