//! The use cases. Sees the domain, the ports and tokio; no adapter, and no library that only an adapter needs.

pub mod admission;
pub mod auth;
pub mod connection;
pub mod dispatch;
pub mod fleet;
pub mod forward;
pub mod hub;
pub mod membership;
pub(crate) mod rebalance;
pub mod reception;
pub mod replay;
pub mod routes;
pub mod wellness;
