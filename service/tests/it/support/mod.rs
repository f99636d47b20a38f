//! What tests need: servers of their own, on free ports and in temporary folders.

pub mod client;
pub mod config;
pub mod fleet;
pub(crate) mod redis;
pub(crate) mod wait;
pub(crate) mod nats;
