//! What the tools beside it share: servers as processes on the loopback network, waits with a deadline, and plain HTTP.

pub mod closes;
pub mod http;
pub mod loopback;
pub mod metrics;
pub mod nats;
pub mod program;
pub mod redis;
pub mod server;
pub mod tokens;
pub mod wait;
