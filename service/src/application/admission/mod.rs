//! One session a key: connects, locks and their renewal, take-overs, and what a client may ask how often.

pub mod connect;
pub mod dispute;
pub mod evict;
pub mod goodbyes;
pub mod kill_inbox;
pub mod killer;
pub(crate) mod leftovers;
pub mod lock_deadlines;
pub mod owners;
pub mod release;
pub mod renew;
pub mod room;
pub mod socket_services;
pub mod throttle;
