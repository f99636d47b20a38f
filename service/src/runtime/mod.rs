//! What everything runs on: threads and their tasks, timers, clocks, listeners.

pub mod backoff;
pub mod breath;
pub mod clock;
pub mod cores;
pub mod fine_timer;
pub mod lifecycle;
pub mod listen;
