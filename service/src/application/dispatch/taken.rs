//! An event between its taking and its settlement.

use crate::application::{forward::in_flight::Pulled, hub::registry::Delivered};

/// An event that was brought to this pod's sockets.
pub(super) struct Taken {
    /// The event, and what is needed for the rest of its way.
    pub(super) pulled: Pulled,
    /// What became of it here.
    pub(super) here: Delivered,
}
