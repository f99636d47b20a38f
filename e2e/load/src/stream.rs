//! The stream of events, as everybody here names it.

/// The stream that pods take events from, by their default configuration.
pub(crate) const STREAM: &str = "wa_stream";
/// The consumer that a floor takes events from if it does not take them from a plain subscription.
pub(crate) const FLOORS_DURABLE: &str = "floor";
/// The consumer that pods share, by their default configuration.
pub(crate) const PODS_DURABLE: &str = "ws_fanout";
