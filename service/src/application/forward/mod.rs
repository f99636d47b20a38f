//! Events for sockets on other pods, and what other pods bring for the sockets here.

pub mod forwarder;
pub mod lane;
pub mod outcome;
pub mod reception;
