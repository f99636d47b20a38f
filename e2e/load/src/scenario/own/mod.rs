//! What wants a desk for each socket: spread and forwarded.

mod forwarded;
mod spread;
pub(super) mod trials;
