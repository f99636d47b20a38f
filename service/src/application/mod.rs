//! The use cases. Sees the domain, the ports and tokio; no adapter, and no library that only an adapter needs.

pub mod auth;
pub mod connect;
pub mod connection;
pub mod deliver;
pub mod directory;
pub mod dispatch;
pub mod drain;
pub mod evict;
pub mod forward;
pub mod hub;
pub mod kill_inbox;
mod lane;
pub mod mailbox;
pub mod membership;
pub mod mint;
pub mod outcome;
pub mod outgoing;
pub mod pod;
pub mod ports;
mod proven_cache;
pub mod readiness;
pub mod release;
pub mod renew;
pub mod route_writer;
mod select_chat;
pub mod session;
pub mod token;
