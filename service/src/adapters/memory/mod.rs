//! memory

pub mod network;
