//! The use cases. Sees the domain, the ports and tokio; no adapter, and no library that only an adapter needs.

pub mod auth;
pub mod connect;
pub mod mint;
pub mod ports;
mod proven_cache;
pub mod readiness;
pub mod token;
