//! Other pods: calls that take longer, fail, or arrive and are not answered.

use std::sync::Arc;

use async_trait::async_trait;
use daisi_ws_domain::{
    event::Event,
    ids::{ConnectionId, PodId},
    peer::PodRecord,
    session::Kill,
};
use daisi_ws_service::ports::{Evicted, Handed, PeerError, Peers, PodLoad, RouteGap};

use super::{Broke, fate::Port};

pub(super) struct PeersPort {
    inner: Arc<dyn Peers>,
    port: Arc<Port>,
}

impl PeersPort {
    pub(super) fn new(inner: Arc<dyn Peers>, port: Arc<Port>) -> Self {
        Self { inner, port }
    }

    async fn call<T: std::fmt::Debug>(
        &self,
        what: String,
        call: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        self.call_again(what, call, std::future::ready(())).await
    }

    /// The same of a call that may come twice; what it does the second time.
    async fn call_again<T: std::fmt::Debug>(
        &self,
        what: String,
        call: impl Future<Output = Result<T, PeerError>>,
        again: impl Future<Output = ()>,
    ) -> Result<T, PeerError> {
        let fate = self.port.next();
        fate.arrive().await;
        let outcome = if fate.refused { Err(PeerError::unreachable(Broke)) } else { call.await };
        if fate.doubled && !fate.refused {
            again.await;
        }
        self.port.note(format_args!("{what}: {:?}", outcome.as_ref().map_err(ToString::to_string)));
        fate.come_back().await;
        if fate.unanswered { Err(PeerError::TimedOut) } else { outcome }
    }
}

#[async_trait]
impl Peers for PeersPort {
    async fn push(&self, to: &PodRecord, events: &[Arc<Event>]) -> Result<Vec<Handed>, PeerError> {
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        self.port.record().open().add("events forwarded", events.len() as u64);
        self.call(format!("hands {seqs:?} to {}", to.id), self.inner.push(to, events)).await
    }

    async fn announce_gaps(&self, to: &PodRecord, gaps: &[RouteGap]) -> Result<(), PeerError> {
        self.call(format!("tells {} of {gaps:?}", to.id), self.inner.announce_gaps(to, gaps)).await
    }

    async fn holds(&self, to: &PodRecord, sockets: &[ConnectionId]) -> Result<Vec<bool>, PeerError> {
        self.call(format!("asks {} for {sockets:?}", to.id), self.inner.holds(to, sockets)).await
    }

    async fn evict(&self, to: &PodRecord, kill: &Kill) -> Result<Evicted, PeerError> {
        self.port.record().open().add("evictions asked of a peer", 1);
        let again = async {
            self.inner.evict(to, kill).await.ok();
        };
        let what = format!("asks {} to close {:?} ({:?})", to.id, kill.victim, kill.claim);
        self.call_again(what, self.inner.evict(to, kill), again).await
    }

    async fn probe(&self, to: &PodRecord) -> Result<(), PeerError> {
        self.call(format!("probes {}", to.id), self.inner.probe(to)).await
    }

    async fn introduce(&self, me: &PodRecord, to: &PodRecord) -> Result<Vec<PodRecord>, PeerError> {
        self.call(format!("introduces itself to {}", to.id), self.inner.introduce(me, to)).await
    }

    async fn has_room(&self, to: &PodRecord) -> Result<bool, PeerError> {
        self.call(format!("asks {} for room", to.id), self.inner.has_room(to)).await
    }

    async fn load(&self, to: &PodRecord) -> Result<PodLoad, PeerError> {
        self.call(format!("asks {} for its load", to.id), self.inner.load(to)).await
    }

    async fn is_well(&self, to: &PodRecord) -> Result<bool, PeerError> {
        self.call(format!("asks {} how it is", to.id), self.inner.is_well(to)).await
    }

    fn forget(&self, pod: &PodId) {
        self.inner.forget(pod);
    }
}
