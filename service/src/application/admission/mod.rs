//! One session a key: connects, locks and their renewal, take-overs, and what a client may ask how often.

pub(crate) mod asked;
pub mod connect;
pub(crate) mod dispute;
pub mod evict;
pub(crate) mod goodbyes;
pub(crate) mod kill_inbox;
pub(crate) mod killer;
pub(crate) mod leftovers;
pub(crate) mod lock_deadlines;
pub(crate) mod owners;
pub mod release;
pub mod renew;
pub mod room;
pub(crate) mod socket_services;
pub mod throttle;
