//! What peers may ask of this pod: events and gaps for its sessions, and whom it knows.

use std::sync::Arc;

use daisi_ws_domain::{
    event::Event,
    gap::Gap,
    ids::{ConnectionId, PodId},
    peer::PodRecord,
    route::RouteKey,
    session::Kill,
};

use crate::{
    application::{
        admission::evict::Evictor,
        fleet::directory::Directory,
        hub::{
            deliver::{LocalDelivery, Path},
            registry::Hub,
        },
        wellness::Wellness,
    },
    ports::{EventSource, Evicted, Handed, PeerService, PodLoad},
};

/// Answers peers.
#[derive(Clone)]
pub(crate) struct Reception {
    /// The way to this pod's sockets.
    pub local: LocalDelivery,
    /// The sessions.
    pub hub: Arc<Hub>,
    /// Closes them on order.
    pub evictor: Evictor,
    /// Who is there.
    pub directory: Arc<Directory>,
    /// How this pod is.
    pub wellness: Arc<Wellness>,
    /// Where events come from.
    pub source: Arc<dyn EventSource>,
}

impl std::fmt::Debug for Reception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reception").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl PeerService for Reception {
    fn deliver(&self, _from: &PodId, events: Vec<Event>) -> Vec<Handed> {
        self.local.deliver_local(&events, Path::Forwarded).into_iter().map(Handed::from).collect()
    }

    fn has_room(&self) -> bool {
        self.hub.has_room()
    }

    fn load(&self) -> PodLoad {
        self.hub.load()
    }

    fn is_well(&self) -> bool {
        self.wellness.is_well() && self.source.is_connected()
    }

    fn holds(&self, sockets: &[ConnectionId]) -> Vec<bool> {
        sockets.iter().map(|socket| self.hub.keeps(socket)).collect()
    }

    fn evict(&self, kill: &Kill) -> Evicted {
        self.evictor.obey(kill)
    }

    fn gap(&self, from: &PodId, route: Option<&RouteKey>, gap: Gap) -> usize {
        let told = self.hub.announce(route, gap);
        tracing::warn!(
            peer.id = %from, sessions = told, gap.dropped = gap.dropped,
            "a peer gave events up; the sessions are told"
        );
        told
    }

    fn introduce(&self, newcomer: &PodRecord) -> Vec<PodRecord> {
        self.directory.meet(newcomer);
        let mut known = self.directory.peers();
        known.retain(|peer| peer.id != newcomer.id);
        known
    }
}
