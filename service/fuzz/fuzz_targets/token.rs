//! The fuzz target `token`.
#![cfg_attr(fuzzing, no_main)]

daisi_ws_fuzz::program!(TOKEN);
