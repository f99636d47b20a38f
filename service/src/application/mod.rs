//! The use cases. Sees the domain, the ports and tokio; no adapter, and no library that only an adapter needs.

pub mod connect;
pub mod kill_inbox;
pub mod ports;
pub mod readiness;
