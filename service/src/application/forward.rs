//! Hands events to peers: one lane a peer, so that a frozen peer delays only what is meant for it.
//!
//! A lane is a bounded queue and a task. What queues while a call is in flight goes in the next call. A call that fails is tried once more; then its
//! events are *parked*: given back to the stream, to be delivered again after a delay, by whichever pod takes them then. Parked events are
//! bounded per peer. Past that, or past a number of tries or an age, an event is *given up*: terminated, counted, and as soon as the peer can be reached
//! again, its sessions get a gap.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{
    lane::{Lane, LaneOrder},
    outcome::{Target, TargetOutcome},
    ports::Peers,
};
use crate::{
    config::Config,
    domain::{gap::Gap, ids::PodId, peer::PodRecord, route::RouteKey},
    lifecycle::Tasks,
    metrics::Metrics,
};

/// Events that may queue for one peer; past that they are parked at once.
const LANE_CAPACITY: usize = 8192;

/// What the consumer's limits mean for forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardLimits {
    /// An event must be handed over, or parked, within this time since it was pulled: half the ack wait.
    pub budget: Duration,
    /// Events that may be parked for one peer by this pod.
    pub parked: usize,
}

/// What lanes share.
pub(super) struct Shared {
    pub(super) peers: Arc<dyn Peers>,
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) limits: Mutex<ForwardLimits>,
    pub(super) metrics: Arc<Metrics>,
}

/// The lanes to all peers.
pub struct Forwarder {
    shared: Arc<Shared>,
    lanes: Mutex<HashMap<PodId, (PodRecord, mpsc::Sender<LaneOrder>)>>,
    tasks: Tasks,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

impl Forwarder {
    /// No lanes yet: each is made with the first event for its peer.
    #[must_use]
    pub fn new(
        peers: Arc<dyn Peers>,
        config: watch::Receiver<Arc<Config>>,
        limits: ForwardLimits,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Shared { peers, config, limits: Mutex::new(limits), metrics };
        Self { shared: Arc::new(shared), lanes: Mutex::default(), tasks }
    }

    /// Takes over new limits: the consumer's are known late, and the share of a pod depends on how many there are.
    pub fn set_limits(&self, limits: ForwardLimits) {
        *self.shared.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Queues an event for a peer. Never waits; the target hears the outcome.
    pub fn forward(&self, to: &PodRecord, target: Target) {
        if let Err(refused) = self.lane(to).try_send(LaneOrder::Forward(target))
            && let LaneOrder::Forward(target) = refused.into_inner()
        {
            target.report(TargetOutcome::Parked);
        }
    }

    /// Remembers that the sessions of a peer on a route go without some events, to be told when it can be reached.
    pub fn owe_gap(&self, to: &PodRecord, routes: Vec<RouteKey>, gap: Gap) {
        if self.lane(to).try_send(LaneOrder::Owe(routes, gap)).is_err() {
            tracing::warn!(peer.id = %to.id, "a gap can't be kept for the peer: its lane is full");
        }
    }

    /// Says that a peer may be reachable again: its next event is tried at once.
    pub fn hint(&self, to: &PodRecord) {
        let known = self.lock().get(&to.id).map(|(_, lane)| lane.clone());
        if let Some(lane) = known {
            let _ = lane.try_send(LaneOrder::Hint);
        }
    }

    /// Ends the lane of a dead peer: what queues there has nobody to go to.
    pub fn forget(&self, pod: &PodId) {
        let lane = self.lock().remove(pod);
        if let Some((_, lane)) = lane {
            let _ = lane.try_send(LaneOrder::PeerIsDead);
        }
        self.shared.metrics.forget_peer(pod.as_str());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodId, (PodRecord, mpsc::Sender<LaneOrder>)>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane of a peer; a peer that restarted gets a new one.
    fn lane(&self, to: &PodRecord) -> mpsc::Sender<LaneOrder> {
        let mut lanes = self.lock();
        match lanes.get(&to.id) {
            Some((record, lane)) if record == to && !lane.is_closed() => lane.clone(),
            _ => {
                let (sender, orders) = mpsc::channel(LANE_CAPACITY);
                lanes.insert(to.id.clone(), (to.clone(), sender.clone()));
                drop(lanes);
                let lane = Lane::new(to.clone(), orders, Arc::clone(&self.shared));
                self.tasks.spawn("lane", lane.run());
                sender
            }
        }
    }
}
