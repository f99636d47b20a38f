//! The last hop: events into the mailboxes of this pod. It sees no peers, so nothing can be forwarded in circles.

use std::sync::Arc;

pub use daisi_ws_domain::event::Path;
use daisi_ws_domain::{event::Event, gap::Gap};

use super::registry::{Delivered, Hub};
use crate::ports::{Handed, SettledUpTo};

/// Delivers to this pod's sockets.
#[derive(Debug, Clone)]
pub struct LocalDelivery {
    hub: Arc<Hub>,
}

impl LocalDelivery {
    /// Delivers to the hub's sessions.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Puts events in the mailboxes that should have them, once. What became of each, in order.
    #[must_use]
    pub(crate) fn deliver_local<'a>(&self, events: impl IntoIterator<Item = &'a Event>, path: Path) -> Vec<Delivered> {
        self.hub.deliver(events, path)
    }

    /// Tells every session that the stream passed over events. How many were told.
    #[must_use]
    pub(crate) fn announce_missed(&self, gap: Gap) -> usize {
        self.hub.announce(None, gap)
    }

    /// Up to where sessions have everything, as frames say; 0 if that is not known.
    #[must_use]
    pub(crate) fn floor(&self) -> u64 {
        self.hub.floor().map_or(0, |settled| settled.seq)
    }

    /// Notes how far the stream's events are settled.
    pub fn settled_up_to(&self, settled: SettledUpTo) {
        self.hub.settled_up_to(settled);
    }
}

impl From<Delivered> for Handed {
    fn from(delivered: Delivered) -> Self {
        match delivered {
            Delivered::To(_) | Delivered::Before => Self::Taken,
            Delivered::Nobody => Self::Nobody,
            Delivered::Between => Self::Between,
        }
    }
}
