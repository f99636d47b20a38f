//! What tests need: servers of their own, on free ports and in temporary folders.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod crowd;
pub(crate) mod far;
pub(crate) mod fixture;
pub(crate) mod fleet;
pub(crate) mod http;
pub(crate) mod late_proxy;
pub(crate) mod nats;
pub(crate) mod otlp;
pub(crate) mod peers;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod renewals;
pub(crate) mod replica;
pub(crate) mod round_trips;
pub(crate) mod shared_address;
pub(crate) mod slow;
pub(crate) mod wait;
