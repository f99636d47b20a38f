//! What is attacked: NATS, Redis and pods, as processes on free ports of the loopback network.

mod log;
pub(crate) mod pod;
pub(crate) mod servers;
