//! What this pod knows of the fleet: which pods are there, how far the store's routes can be trusted, and so where an event has to go.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::ports::{Epoch, Incarnation, Lookup, Routes, StoreError};
use crate::{
    domain::{ids::PodId, peer::PodRecord, route::RouteKey},
    metrics::Metrics,
};

/// After a failed look-up the store is not asked again for this long: a frozen store must not slow every batch by its time-out.
const STORE_REST: Duration = Duration::from_secs(1);

/// Routes whose keys were refused and are remembered; past that no route is trusted.
const MAX_REFUSED: usize = 1024;

/// How long a look-up that met an unknown pod waits for the members to be read anew.
const REFRESH_WAIT: Duration = Duration::from_millis(500);

/// A pod of the table.
#[derive(Debug, Clone)]
struct Peer {
    record: Arc<PodRecord>,
    /// Has no liveness key. It may be dead, frozen, or only cut off from the store; until it is known to be dead it is sent everything, since its
    /// routes can no longer be trusted to be there.
    lapsed: bool,
}

#[derive(Debug, Default)]
struct Table {
    peers: HashMap<PodId, Peer>,
    /// Members without a liveness key that this pod never knew with one.
    strangers: HashSet<PodId>,
    epoch: Option<Epoch>,
    incarnation: Option<Incarnation>,
    settling_until: Option<Instant>,
    store_rests_until: Option<Instant>,
    /// Routes whose keys held something else, and until when they are not trusted: once such a key is gone, the pods on the route have to write it again.
    refused: HashMap<RouteKey, Instant>,
}

/// Where the events of one look-up go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// For each route asked, in order: the other pods.
    pub peers: Vec<Vec<Arc<PodRecord>>>,
    /// Pods found on a route that are not in the table: dead, or newer than the table.
    pub unknown: Vec<(PodId, RouteKey)>,
    /// Routes with a member of the fleet whose address nobody here knows: it may live, so its events must not be settled as nobody's.
    pub unreachable: Vec<RouteKey>,
}

/// What this pod knows of another, as of the last reading of the members.
#[derive(Debug, Clone)]
pub enum Known {
    /// It can be called.
    Peer {
        /// Where.
        record: Arc<PodRecord>,
        /// Has it no liveness key?
        lapsed: bool,
    },
    /// It is a member without a liveness key, and its address was never known here.
    Stranger,
    /// It is no member: dead, or newer than the reading.
    Nobody,
}

/// The table of peers and the state of trust. Shared; no method awaits but [`Directory::targets`].
#[derive(Debug)]
pub struct Directory {
    me: PodId,
    table: RwLock<Table>,
    settle_for: Duration,
    doubts: Notify,
    refreshed: Notify,
    metrics: Arc<Metrics>,
}

impl Directory {
    /// An empty table. `settle_for`: how long, after the store lost data or was away, look-ups mean every live pod.
    #[must_use]
    pub fn new(me: PodId, settle_for: Duration, metrics: Arc<Metrics>) -> Self {
        Self { me, table: RwLock::default(), settle_for, doubts: Notify::new(), refreshed: Notify::new(), metrics }
    }

    /// This pod.
    #[must_use]
    pub fn me(&self) -> &PodId {
        &self.me
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- peers ----

    /// Takes over who has a liveness key (`pods`) and who is a member without one. Peers that have none any more stay, as lapsed. Returns those that
    /// are new, or back from being lapsed.
    pub fn set_members(&self, pods: &[PodRecord], without_key: &[PodId]) -> Vec<PodRecord> {
        let mut table = self.write();
        let mut news = Vec::new();
        for record in pods.iter().filter(|record| record.id != self.me) {
            let peer = Peer { record: Arc::new(record.clone()), lapsed: false };
            match table.peers.insert(record.id.clone(), peer) {
                Some(before) if !before.lapsed && *before.record == *record => {}
                _ => news.push(record.clone()),
            }
        }
        let alive: HashSet<&PodId> = pods.iter().map(|record| &record.id).collect();
        for peer in table.peers.values_mut() {
            peer.lapsed = !alive.contains(&peer.record.id);
        }
        table.strangers = without_key.iter().filter(|pod| **pod != self.me && !table.peers.contains_key(*pod)).cloned().collect();
        let lapsed = table.peers.values().filter(|peer| peer.lapsed).count();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.peers.with_label_values(&["lapsed"]).set(count(lapsed));
        self.metrics.peers.with_label_values(&["alive"]).set(count(table.peers.len() - lapsed));
        drop(table);
        self.refreshed.notify_waiters();
        news
    }

    /// The peers without a liveness key.
    #[must_use]
    pub fn lapsed(&self) -> Vec<PodRecord> {
        self.read().peers.values().filter(|peer| peer.lapsed).map(|peer| PodRecord::clone(&peer.record)).collect()
    }

    /// Every peer that is not known to be dead.
    #[must_use]
    pub fn peers(&self) -> Vec<PodRecord> {
        self.read().peers.values().map(|peer| PodRecord::clone(&peer.record)).collect()
    }

    /// A peer, unless it is known to be dead.
    #[must_use]
    pub fn peer(&self, pod: &PodId) -> Option<PodRecord> {
        self.read().peers.get(pod).map(|peer| PodRecord::clone(&peer.record))
    }

    /// What is known of a pod.
    #[must_use]
    pub fn known(&self, pod: &PodId) -> Known {
        let table = self.read();
        match table.peers.get(pod) {
            Some(peer) => Known::Peer { record: Arc::clone(&peer.record), lapsed: peer.lapsed },
            None if table.strangers.contains(pod) => Known::Stranger,
            None => Known::Nobody,
        }
    }

    /// How many pods there are, this one included.
    #[must_use]
    pub fn fleet_size(&self) -> usize {
        self.read().peers.len() + 1
    }

    /// Takes a dead peer out.
    pub fn remove(&self, pod: &PodId) {
        self.write().peers.remove(pod);
    }

    // ---- trust ----

    /// Takes over the epoch. True if it is another than before: the store has lost data, and look-ups are not trusted for a while.
    pub fn note_epoch(&self, epoch: &Epoch) -> bool {
        let mut table = self.write();
        let lost = table.epoch.as_ref().is_some_and(|known| known != epoch);
        if lost {
            table.settling_until = Some(Instant::now() + self.settle_for);
        }
        table.epoch = Some(epoch.clone());
        lost
    }

    /// Takes over the incarnation that gave an answer. True if it is a later one than before: the store may have lost data, and look-ups are not trusted for a while,
    /// that answer included. An answer of an earlier one is late, and says nothing new.
    pub fn note_incarnation(&self, incarnation: Incarnation) -> bool {
        let mut table = self.write();
        let lost = table.incarnation.is_some_and(|known| known < incarnation);
        if lost {
            table.settling_until = Some(Instant::now() + self.settle_for);
        }
        table.incarnation = table.incarnation.max(Some(incarnation));
        lost
    }

    /// Waits until something gives reason to announce this pod at once: a look-up met another epoch, or a pod that is not in the table.
    pub async fn doubts(&self) {
        self.doubts.notified().await;
    }

    /// Asks for a new reading of the members and waits for it, for a short while. False if none came.
    pub async fn refreshed(&self) -> bool {
        let refreshed = self.refreshed.notified();
        self.doubts.notify_one();
        tokio::time::timeout(REFRESH_WAIT, refreshed).await.is_ok()
    }

    /// The members without a liveness key that this pod never knew: they can't be probed.
    #[must_use]
    pub fn strangers(&self) -> Vec<PodId> {
        self.read().strangers.iter().cloned().collect()
    }

    /// Notes that the store could not be asked: whatever it says when it is back may be old, and is not trusted for a while.
    pub fn note_store_trouble(&self) {
        self.write().settling_until = Some(Instant::now() + self.settle_for);
    }

    /// Are look-ups not to be trusted now?
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.read().settling_until.is_some_and(|until| Instant::now() < until)
    }

    // ---- where events go ----

    /// Finds the peers for each of the routes, in one round trip to the store. Never fails: without a trustworthy answer, all peers are meant.
    pub async fn targets(&self, routes: &dyn Routes, keys: &[RouteKey]) -> Targets {
        let rests = self.read().store_rests_until.is_some_and(|until| Instant::now() < until);
        let answer = if rests {
            Err(StoreError::Unavailable("resting after a failed look-up".into()))
        } else {
            let answer = routes.lookup(&self.me, keys).await;
            self.write().store_rests_until = answer.is_err().then(|| Instant::now() + STORE_REST);
            answer
        };
        match answer {
            Ok(lookup) => {
                let lost = self.note_incarnation(lookup.incarnation);
                if lost || self.read().epoch != lookup.epoch {
                    self.note_store_trouble();
                    self.doubts.notify_one();
                }
                if !lookup.refused.is_empty() {
                    self.note_refused(lookup.refused.iter().filter_map(|place| keys.get(*place)));
                }
                let settling = self.is_settling();
                let outcome = if settling { "settling" } else { "trusted" };
                self.metrics.route_lookups_total.with_label_values(&[outcome]).inc();
                self.choose(&lookup, keys, settling)
            }
            Err(_) => {
                self.note_store_trouble();
                self.metrics.route_lookups_total.with_label_values(&["error"]).inc();
                let all: Vec<_> = self.read().peers.values().map(|peer| Arc::clone(&peer.record)).collect();
                Targets { peers: vec![all; keys.len()], unknown: Vec::new(), unreachable: Vec::new() }
            }
        }
    }

    /// Notes routes about which the store can't say anything: until it can, and for a while after, they mean every live peer.
    fn note_refused<'a>(&self, routes: impl Iterator<Item = &'a RouteKey>) {
        let mut table = self.write();
        let (now, until) = (Instant::now(), Instant::now() + self.settle_for);
        table.refused.retain(|_, until| now < *until);
        for route in routes {
            if table.refused.len() >= MAX_REFUSED && !table.refused.contains_key(route) {
                table.settling_until = Some(until);
                return;
            }
            table.refused.insert(route.clone(), until);
        }
    }

    fn choose(&self, lookup: &Lookup, keys: &[RouteKey], settling: bool) -> Targets {
        let table = self.read();
        let (mut unknown, mut unreachable) = (Vec::new(), Vec::new());
        let now = Instant::now();
        let peers = keys
            .iter()
            .zip(&lookup.pods)
            .map(|(key, on_route)| {
                for pod in on_route.iter().filter(|pod| **pod != self.me && !table.peers.contains_key(*pod)) {
                    if table.strangers.contains(pod) {
                        unreachable.push(key.clone());
                    } else {
                        unknown.push((pod.clone(), key.clone()));
                    }
                }
                let refused = table.refused.get(key).is_some_and(|until| now < *until);
                if refused && !table.strangers.is_empty() {
                    unreachable.push(key.clone());
                }
                let wanted = |peer: &&Peer| settling || refused || peer.lapsed || on_route.contains(&peer.record.id);
                table.peers.values().filter(wanted).map(|peer| Arc::clone(&peer.record)).collect()
            })
            .collect();
        Targets { peers, unknown, unreachable }
    }
}
