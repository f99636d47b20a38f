//! What everything runs on: threads and their tasks, timers, clocks, listeners.

pub mod backoff;
pub mod clock;
pub mod fine_timer;
pub mod lifecycle;
pub mod linger;
pub mod listen;
pub(crate) mod prefetch;
pub mod stop;
pub mod workers;
