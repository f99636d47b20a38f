//! The servers of a run: what is measured, and what it needs.

pub(crate) mod floor;
pub(crate) mod keys;
pub(crate) mod nats;
pub(crate) mod pod;
pub(crate) mod redis;
pub(crate) mod servers;
