//! What the tools beside it share: waits with a deadline, plain HTTP, and servers as processes on the loopback network.

pub mod http;
pub mod wait;
