//! What pods share, in one process: for `dev`, and for tests of many pods in milliseconds.

pub mod store;
pub mod token_cache;
