//! What befalls a cluster.

pub mod container;
pub mod links;
pub mod redis;
