//! What befalls a cluster.

pub mod container;
