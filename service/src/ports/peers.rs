//! The other pods, both ways.

use async_trait::async_trait;
use daisi_ws_domain::{
    event::Event,
    gap::Gap,
    ids::{ConnectionId, PodId},
    peer::PodRecord,
    route::RouteKey,
    session::Kill,
};

use super::errors::PeerError;

/// What the sessions on one route of a pod, or all of them, have missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteGap {
    /// The route; `None`: every session.
    pub route: Option<RouteKey>,
    /// What they missed, as their clients are told.
    pub gap: Gap,
}

/// What a pod says of an event that it was handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// Some socket there took it, now or before.
    Taken,
    /// No socket there wants it.
    Nobody,
    /// The pod drains, and a session that wants it was told to go and may not be on another pod yet: it has to be delivered again
    /// soon.
    Between,
}

/// What a pod says of a socket that it was asked to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evicted {
    /// It is there no more, and its lock may be taken.
    Gone,
    /// Its client was asked to move: it serves on until its lock has passed to the second socket, which has to say so then.
    Serves,
}

/// How many sockets a pod has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodLoad {
    /// Those that are still connecting included.
    pub sockets: u64,
    /// It lets nobody in any more.
    pub draining: bool,
}

/// The other pods. The implementation pools connections; breakers, retries and queues are the caller's.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Hands events over; for each, in order, what became of it. The caller bounds the time.
    async fn push(&self, to: &PodRecord, events: &[std::sync::Arc<Event>]) -> Result<Vec<Handed>, PeerError>;

    /// Tells sessions of the peer that they missed events, all of it in one call. After an error some may have been told, and
    /// telling again is safe. The caller bounds the time, and the number.
    async fn announce_gaps(&self, to: &PodRecord, gaps: &[RouteGap]) -> Result<(), PeerError>;

    /// Which of these sockets does just this pod hold, open or still connecting, and not asked to move? In order. Bounded by a
    /// short time-out of its own.
    async fn holds(&self, to: &PodRecord, sockets: &[ConnectionId]) -> Result<Vec<bool>, PeerError>;

    /// Asks just this pod to close a socket of its own, the kill's victim, so that another can have its session. Bounded by a
    /// short time-out of its own. A pod that is too old to know the question refuses it.
    async fn evict(&self, to: &PodRecord, kill: &Kill) -> Result<Evicted, PeerError>;

    /// Is anybody there who answers? Bounded by a short time-out of its own.
    async fn probe(&self, to: &PodRecord) -> Result<(), PeerError>;

    /// Makes this pod known to the peer and asks whom it knows: at most [`MAX_PODS`](super::MAX_PODS). Bounded by a short
    /// time-out of its own.
    async fn introduce(&self, me: &PodRecord, to: &PodRecord) -> Result<Vec<PodRecord>, PeerError>;

    /// Does it say that it has room for sockets? Bounded by a short time-out of its own. A pod that is too old to know the
    /// question refuses it.
    async fn has_room(&self, _to: &PodRecord) -> Result<bool, PeerError> {
        Err(PeerError::refused("it is not asked for room"))
    }

    /// How many sockets has just this pod? Bounded by a short time-out of its own. A pod that is too old to know the question
    /// refuses it.
    async fn load(&self, _to: &PodRecord) -> Result<PodLoad, PeerError> {
        Err(PeerError::refused("it is not asked for its load"))
    }

    /// Does it say that it takes events and can bring them where they belong? Bounded by a short time-out of its own. A pod that
    /// is too old to know the question is well if it is there.
    async fn is_well(&self, to: &PodRecord) -> Result<bool, PeerError> {
        self.probe(to).await.map(|()| true)
    }

    /// Drops what is kept for a peer that is gone.
    fn forget(&self, pod: &PodId);
}

/// What a pod does when a peer calls it; served by the peers' adapter.
pub trait PeerService: Send + Sync {
    /// Puts the events in the mailboxes here that should have them. It sees no peers, so nothing can go in circles.
    fn deliver(&self, from: &PodId, events: Vec<Event>) -> Vec<Handed>;

    /// May connects come here that another pod has no room for?
    fn has_room(&self) -> bool {
        false
    }

    /// How many sockets it has.
    fn load(&self) -> PodLoad;

    /// Does it take events, and can it bring them where they belong?
    fn is_well(&self) -> bool {
        true
    }

    /// Which of these sockets are here to stay, in order: whose clients were not asked to move.
    fn holds(&self, sockets: &[ConnectionId]) -> Vec<bool>;

    /// Closes the victim of a kill, if it is here.
    fn evict(&self, kill: &Kill) -> Evicted;

    /// Tells the sessions on `route` (or all) about a gap; returns how many were told.
    fn gap(&self, from: &PodId, route: Option<&RouteKey>, gap: Gap) -> usize;

    /// Takes note of a pod that makes itself known; returns the pods that this one knows, and does not know to be dead.
    fn introduce(&self, newcomer: &PodRecord) -> Vec<PodRecord>;
}
