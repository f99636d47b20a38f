//! What tests need: servers of their own, on free ports and in temporary folders.

// `cfg(test)` tells clippy that helpers outside a test function are tests too, and may unwrap.
#[cfg(test)]
pub(crate) mod nats;
