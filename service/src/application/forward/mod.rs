//! Events for sockets on other pods, and what other pods bring for the sockets here.

pub mod forwarder;
pub mod in_flight;
pub mod limits;
pub mod peer_queue;
pub mod reception;
