//! Somebody who can write to Redis.

pub mod false_pod;
pub mod redis;
