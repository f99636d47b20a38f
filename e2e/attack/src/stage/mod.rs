//! What is attacked: NATS, Redis and pods, as processes on free ports of the loopback network.

mod log;
pub mod pod;
pub mod servers;
