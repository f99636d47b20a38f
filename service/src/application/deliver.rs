//! The last hop: events into the mailboxes of this pod. It sees no peers, so nothing can be forwarded in circles.

use std::sync::Arc;

use super::{
    hub::{Delivered, Hub},
    ports::PeerService,
};
pub use crate::domain::event::Path;
use crate::domain::{event::Event, gap::Gap, ids::PodId, route::RouteKey};

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

    /// Puts an event in the mailboxes that should have it, once.
    #[must_use]
    pub fn deliver_local(&self, event: &Event, path: Path) -> Delivered {
        self.hub.deliver(event, path)
    }
}

impl PeerService for LocalDelivery {
    fn deliver(&self, _from: &PodId, events: Vec<Event>) -> Vec<bool> {
        events.iter().map(|event| self.deliver_local(event, Path::Forwarded).is_taken()).collect()
    }

    fn gap(&self, from: &PodId, route: Option<&RouteKey>, gap: Gap) -> usize {
        let told = self.hub.announce(route, gap);
        tracing::warn!(peer.id = %from, sessions = told, gap.dropped = gap.dropped, "a peer gave events up; the sessions are told");
        told
    }
}
