//! One suite a port, run on the memory backend and on the real one: both must keep the same promises.

// `cfg(test)` tells clippy that helpers outside a test function are tests too, and may unwrap.
#[cfg(test)]
mod event_source;
#[cfg(test)]
mod nats_faults;
#[cfg(test)]
mod nats_source;
