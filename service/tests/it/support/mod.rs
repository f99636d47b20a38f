//! What tests need: servers of their own, on free ports and in temporary folders.

pub(crate) mod late_proxy;
pub(crate) mod redis;
pub(crate) mod wait;
