//! What an attack does to those whom the pod serves.

pub mod audience;
pub mod probe;
pub mod samples;
