//! Somebody who can write to Redis.

pub(crate) mod false_pod;
pub(crate) mod redis;
