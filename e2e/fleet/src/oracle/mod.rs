//! Compares what sessions saw with what was published, and writes the table of faults.

pub mod fault_time;
pub mod lateness;
pub mod moves;
mod socket;
pub mod table;
pub mod verdict;
