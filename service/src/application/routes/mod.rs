//! Which routes lead to this pod, as the store has them.

pub mod writer;
