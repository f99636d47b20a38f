//! The last hop: events into the mailboxes of this pod. It sees no peers, so nothing can be forwarded in circles.

use std::sync::Arc;

use super::{
    hub::{Delivered, Hub},
    ports::PeerService,
};
use crate::{
    clock,
    domain::{event::Event, gap::Gap, ids::PodId, route::RouteKey},
    metrics::Metrics,
};

/// Which way an event came to its mailbox; the closed set behind the `path` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// The pod that took it from the stream has the socket.
    Local,
    /// A peer handed it over.
    Forwarded,
}

/// Delivers to this pod's sockets.
#[derive(Debug, Clone)]
pub struct LocalDelivery {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

impl LocalDelivery {
    /// Delivers to the hub's sessions.
    #[must_use]
    pub fn new(hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        Self { hub, metrics }
    }

    /// Puts an event in the mailboxes that should have it, once.
    #[must_use]
    pub fn deliver_local(&self, event: &Event, path: Path) -> Delivered {
        let delivered = self.hub.deliver(event);
        if let Delivered::To(_) = delivered {
            let path = match path {
                Path::Local => "local",
                Path::Forwarded => "forwarded",
            };
            let age = clock::now().saturating_sub(event.stored_at);
            self.metrics.event_delivery_seconds.with_label_values(&[path]).observe(age.as_secs_f64());
        }
        delivered
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
