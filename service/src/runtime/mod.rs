//! What everything runs on: threads and their tasks, timers, clocks, listeners.

pub(crate) mod backoff;
pub mod chance;
pub mod clock;
pub mod fine_timer;
pub mod gate;
pub mod lifecycle;
pub(crate) mod linger;
pub mod listen;
pub(crate) mod prefetch;
pub mod stop;
pub mod watched;
pub mod workers;
