//! memory

pub mod stream;
