//! What pods share, in one process: for `dev`, and for tests of many pods in milliseconds. Each has switches for the faults that
//! the real one has.

pub mod network;
pub mod store;
pub mod stream;
