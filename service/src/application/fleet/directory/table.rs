//! The table of peers, and what bears on how far it can be trusted.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    ids::PodId,
    maps::{Map, Set},
    peer::PodRecord,
    route::RouteKey,
};
use tokio::time::Instant;

use super::{passed_over::PassedOver, unheard::Unheard};
use crate::ports::{Epoch, Incarnation, MAX_PODS};

/// For so long after a peer was found dead or gone, what others say of it is old news.
pub(super) const RETIRED_FOR: Duration = Duration::from_secs(60);

/// A pod of the table.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) record: Arc<PodRecord>,
    /// Has no liveness key. It may be dead, frozen, or only cut off from the store; until it is known to be dead it is sent
    /// everything, since its routes can no longer be trusted to be there.
    pub(super) lapsed: bool,
}

/// A pod that is known to be dead or gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retired {
    /// When the process began that was found so.
    pub(super) started_at: Duration,
    /// Since when it is known.
    pub(super) at: Instant,
    /// First and last of the events that were settled here without it.
    pub(super) settled: Option<(u64, u64)>,
}

/// All that is known of the others, under one lock.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) peers: Map<PodId, Peer>,
    /// Members without a liveness key that this pod never knew with one.
    pub(super) unknown: Set<PodId>,
    /// Pods on routes that are no members.
    pub(super) unheard: Unheard,
    /// Pods that are known to be dead or gone.
    pub(super) retired: Map<PodId, Retired>,
    pub(super) epoch: Option<Epoch>,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) settling_until: Option<Instant>,
    /// See [`Directory::doubt_for`](super::Directory::doubt_for).
    pub(super) doubting_until: Option<Instant>,
    /// What sessions of others may have missed because of this pod.
    pub(super) passed_over: PassedOver,
    /// Since that was asked last, a process was found that did not make itself known to this pod.
    pub(super) has_strangers: bool,
    pub(super) store_backs_off_until: Option<Instant>,
    /// Routes whose keys held something else, and until when they are not trusted: once such a key is gone, the pods on the route
    /// have to write it again.
    pub(super) refused: Map<RouteKey, Instant>,
}

impl Table {
    /// A pod that lives. Returns what was known of it before. More than a fleet has are not kept.
    pub(super) fn meet(&mut self, record: &PodRecord) -> Option<Peer> {
        if self.peers.len() >= MAX_PODS && !self.peers.contains_key(&record.id) {
            return None;
        }
        self.unknown.remove(&record.id);
        self.unheard.forget(&record.id);
        let retired = self.retired.remove(&record.id);
        let before = self.peers.insert(record.id.clone(), Peer { record: Arc::new(record.clone()), lapsed: false });
        if let Some(retired) = retired.filter(|retired| retired.started_at == record.started_at) {
            self.passed_over.met_dead(record, retired.settled);
        } else if before.as_ref().is_none_or(|before| before.record.started_at != record.started_at) {
            self.passed_over.met_new(record, Instant::now());
        }
        before
    }

    /// The same, where the pod did not make itself known to this one.
    pub(super) fn find(&mut self, record: &PodRecord) -> Option<Peer> {
        let before = self.meet(record);
        self.has_strangers |= before.as_ref().is_none_or(|before| before.record.started_at != record.started_at);
        before
    }

    /// A pod that others know, and this one does not. Counts as lapsed.
    pub(super) fn hear_of(&mut self, record: &PodRecord) {
        self.unknown.remove(&record.id);
        self.unheard.forget(&record.id);
        self.peers.insert(record.id.clone(), Peer { record: Arc::new(record.clone()), lapsed: true });
        self.passed_over.met_new(record, Instant::now());
        self.has_strangers = true;
    }

    pub(super) fn is_settling(&self, now: Instant) -> bool {
        [self.settling_until, self.doubting_until].into_iter().flatten().any(|until| now < until)
    }

    /// A pod that is dead or gone. True if it was there.
    pub(super) fn retire(&mut self, pod: &PodId) -> bool {
        let Some(peer) = self.peers.remove(pod) else { return false };
        let now = Instant::now();
        if self.retired.len() >= MAX_PODS {
            self.retired.retain(|_, retired| now < retired.at + RETIRED_FOR);
        }
        if self.retired.len() < MAX_PODS {
            let retired = Retired { started_at: peer.record.started_at, at: now, settled: None };
            self.retired.insert(pod.clone(), retired);
        }
        true
    }
}
