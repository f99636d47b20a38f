//! Events for sockets on other pods, and what other pods bring for the sockets here.

pub(crate) mod forwarder;
pub mod in_flight;
pub mod limits;
pub(crate) mod peer_queue;
