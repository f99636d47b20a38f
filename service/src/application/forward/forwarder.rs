//! Hands events to peers: one queue a peer, so that a frozen peer delays only what is meant for it.
//!
//! Each is bounded, and has a task. What queues while a call is in flight goes in the next call. A call that fails is tried once
//! more; then its events are *parked*: given back to the stream, to be delivered again after a delay, by whichever pod takes them
//! then. What is unsettled for a peer that does not answer is bounded, for each and for all of them together. Past that, or past
//! a number of tries or an age, an event is *given up*: terminated, counted, and as soon as the peer can be reached again, its
//! sessions get a gap.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daisi_ws_domain::{gap::Gap, ids::PodId, maps::Map, peer::PodRecord, route::RouteKey};
use futures_util::future::join_all;
use tokio::{sync::watch, time::Instant};

use super::{
    in_flight::{Target, TargetOutcome},
    limits::ForwardLimits,
    peer_queue::{PeerQueue, Shared, Sums},
};
use crate::{
    application::wellness::Wellness,
    config::Config,
    ports::{Peers, Routes},
    runtime::lifecycle::Tasks,
};

/// The queues to all peers.
pub struct Forwarder {
    shared: Arc<Shared>,
    peer_queues: Mutex<Map<PodId, Arc<PeerQueue>>>,
    tasks: Tasks,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

impl Forwarder {
    /// No queues yet: each is made with the first event for its peer. `routes` is where a peer is told of gaps that takes none
    /// from this pod.
    #[must_use]
    pub fn new(
        peers: Arc<dyn Peers>,
        routes: Arc<dyn Routes>,
        config: watch::Receiver<Arc<Config>>,
        limits: ForwardLimits,
        tasks: Tasks,
        wellness: Arc<Wellness>,
    ) -> Self {
        let metrics = Arc::clone(tasks.metrics());
        let shared = Shared { peers, routes, config, limits: Mutex::new(limits), metrics, wellness, sums: Sums::default() };
        Self { shared: Arc::new(shared), peer_queues: Mutex::default(), tasks }
    }

    /// Takes over new limits: the consumer's are known late, and the share of a pod depends on how many there are.
    pub(crate) fn set_limits(&self, limits: ForwardLimits) {
        *self.shared.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// The limits in force, which change with the fleet and the consumer.
    #[must_use]
    pub fn limits(&self) -> ForwardLimits {
        *self.shared.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an event for a peer. Never waits; the target hears the outcome.
    pub fn forward(&self, to: &PodRecord, target: Target) {
        self.peer_queue(to).offer(target);
    }

    /// Remembers that the sessions of a peer on some routes go without an event that its queue gave up, to be told when it can be
    /// reached.
    pub(crate) fn owe_gap(&self, to: &PodId, routes: impl IntoIterator<Item = RouteKey>, gap: Gap) {
        let peer_queue = self.lock().get(to).cloned();
        // Without a queue the peer is dead, and should it live it finds that it was retired.
        if let Some(peer_queue) = peer_queue {
            peer_queue.add_gap(routes, gap);
        }
    }

    /// Remembers that all sessions of a peer go without some events, to be told when it can be reached.
    pub(crate) fn owe_all(&self, to: &PodRecord, gap: Gap) {
        self.peer_queue(to).add_gap_to_all(gap);
    }

    /// A peer has proved itself: its series exist from now on, so that their first increase shows. One that has only been heard
    /// of makes none.
    pub(crate) fn note_proof(&self, pod: &PodId) {
        self.shared.metrics.know_peer(pod.as_str());
    }

    /// Says that a peer is there, new or reachable again: its next event is tried at once.
    pub fn hint(&self, to: &PodRecord) {
        let known = self.lock().get(&to.id).cloned();
        if known.is_some() {
            // Of another process the queue is made anew, with what is owed to the sessions there.
            self.peer_queue(to).hint();
        }
    }

    /// Ends the queue of a dead peer: what queues there has nobody to go to.
    pub fn forget(&self, pod: &PodId) {
        let peer_queue = self.lock().remove(pod);
        if let Some(peer_queue) = peer_queue {
            peer_queue.close(TargetOutcome::Nobody);
        }
        self.shared.wellness.forget(pod);
        self.shared.metrics.forget_peer(pod.as_str());
    }

    /// Says to the sessions of peers what they are still owed, for a pod that leaves. Peers that don't take it until the deadline
    /// go without.
    pub(crate) async fn settle_debts(&self, deadline: Instant) {
        let peer_queues: Vec<_> = self.lock().values().cloned().collect();
        let _ = tokio::time::timeout_at(deadline, join_all(peer_queues.iter().map(|peer_queue| peer_queue.settle_debts()))).await;
    }

    fn lock(&self) -> MutexGuard<'_, Map<PodId, Arc<PeerQueue>>> {
        self.peer_queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue of a peer; a peer that restarted gets a new one.
    fn peer_queue(&self, to: &PodRecord) -> Arc<PeerQueue> {
        let mut peer_queues = self.lock();
        match peer_queues.get(&to.id) {
            Some(peer_queue) if peer_queue.peer == *to => Arc::clone(peer_queue),
            _ => {
                let peer_queue = Arc::new(PeerQueue::new(to.clone(), Arc::clone(&self.shared)));
                let before = peer_queues.insert(to.id.clone(), Arc::clone(&peer_queue));
                drop(peer_queues);
                if let Some(before) = before {
                    // Who connected to the new process before this pod knew of it is owed the same.
                    peer_queue.inherit(&before);
                    // Anyone who is on the route now is another process: the stream finds out anew.
                    before.close(TargetOutcome::Parked);
                }
                let run = Arc::clone(&peer_queue);
                self.tasks.supervise("peer_queue", move || {
                    let peer_queue = Arc::clone(&run);
                    async move { peer_queue.run().await }
                });
                peer_queue
            }
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.lock().values().for_each(|peer_queue| peer_queue.close(TargetOutcome::Parked));
    }
}
