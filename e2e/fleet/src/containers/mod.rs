//! What runs in containers: a network with NATS, Redis and pods in it.

pub mod cluster;
pub mod docker;
pub mod pod;
pub mod redis;
mod server;
