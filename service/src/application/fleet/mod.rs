//! What this pod knows of the fleet, and the key that all its pods have.

pub mod directory;
pub mod key;
