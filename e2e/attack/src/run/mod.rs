//! One attack from its beginning to its end, and what was measured meanwhile.

pub mod attack;
mod circumstance;
pub mod plan;
mod reading;
pub mod row;
mod sessions;
