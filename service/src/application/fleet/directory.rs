//! What this pod knows of the fleet: which pods are there, how far the store's routes can be trusted, and so where an event has
//! to go.

mod unheard;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use indexmap::IndexMap;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use unheard::Unheard;

use crate::{
    metrics::{
        Metrics,
        labels::{PeerState, RouteLookup},
    },
    ports::{Announcement, Epoch, Incarnation, Lookup, MAX_PODS, Routes, Standing, log_store_error},
};

/// After a failed look-up the store is not asked again for this long: a frozen store must not slow every batch by its time-out.
const STORE_REST: Duration = Duration::from_secs(1);

/// Routes whose keys were refused and are remembered; past that no route is trusted.
const MAX_REFUSED: usize = 1024;

/// How long one waits for the members to be read anew.
const REFRESH_WAIT: Duration = Duration::from_secs(1);
/// For so long after a peer was found dead or gone, what others say of it is old news.
const RETIRED_FOR: Duration = Duration::from_secs(60);
/// Unknown pods that one look-up asks about; the routes of the others are in doubt until the next.
const MAX_UNKNOWN: usize = 1024;

/// A pod of the table.
#[derive(Debug, Clone)]
struct Peer {
    record: Arc<PodRecord>,
    /// Has no liveness key. It may be dead, frozen, or only cut off from the store; until it is known to be dead it is sent
    /// everything, since its routes can no longer be trusted to be there.
    lapsed: bool,
}

#[derive(Debug, Default)]
struct Table {
    peers: HashMap<PodId, Peer>,
    /// Members without a liveness key that this pod never knew with one.
    unknown: HashSet<PodId>,
    /// Pods on routes that are no members.
    unheard: Unheard,
    /// Since when pods are known to be dead or gone.
    retired: HashMap<PodId, (Duration, Instant)>,
    epoch: Option<Epoch>,
    incarnation: Option<Incarnation>,
    settling_until: Option<Instant>,
    store_backs_off_until: Option<Instant>,
    /// Routes whose keys held something else, and until when they are not trusted: once such a key is gone, the pods on the route
    /// have to write it again.
    refused: HashMap<RouteKey, Instant>,
}

/// Where the events of one look-up go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// For each route asked, in order: the other pods.
    pub peers: Vec<Vec<Arc<PodRecord>>>,
    /// For each route asked: a pod that stands there, may live, and whose address is not known. Its events must not be settled as
    /// nobody's.
    pub doubtful: Vec<Option<PodId>>,
}

impl Targets {
    fn add_unknown(&mut self, pod: &PodId, places: &[usize]) {
        places.iter().for_each(|place| self.doubtful[*place] = Some(pod.clone()));
    }
}

/// What changed with an announcement.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Peers that are new, or back from being lapsed.
    pub news: Vec<PodRecord>,
    /// Peers that have left.
    pub left: Vec<PodId>,
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
    Unlisted,
    /// It is no member: dead, or newer than the reading.
    Nobody,
}

/// The table of peers and the state of trust. Shared; no method awaits but [`Directory::targets`], and those that wait for
/// something.
#[derive(Debug)]
pub struct Directory {
    me: PodId,
    table: RwLock<Table>,
    settle_for: Duration,
    refresh_requests: Notify,
    /// How many readings of the members were begun, and up to which all have ended.
    begun: AtomicU64,
    ended: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

impl Directory {
    /// An empty table. `settle_for`: how long, after the store lost data or was away, look-ups mean every live pod.
    #[must_use]
    pub fn new(me: PodId, settle_for: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            me,
            table: RwLock::default(),
            settle_for,
            refresh_requests: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            metrics,
        }
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

    /// Takes over who has a liveness key, who is a member without one, and who has left. Other peers that have no key stay, as
    /// lapsed.
    pub fn take_over(&self, announced: &Announcement) -> Changes {
        let mut table = self.write();
        let mut changes = Changes::default();
        for record in announced.pods.iter().filter(|record| record.id != self.me) {
            match table.meet(record) {
                Some(before) if !before.lapsed && *before.record == *record => {}
                _ if table.peers.contains_key(&record.id) => changes.news.push(record.clone()),
                _ => {}
            }
        }
        for pod in &announced.left {
            if table.retire(pod) {
                changes.left.push(pod.clone());
            }
        }
        let alive: HashSet<&PodId> = announced.pods.iter().map(|record| &record.id).collect();
        for peer in table.peers.values_mut() {
            peer.lapsed = !alive.contains(&peer.record.id);
        }
        let lapsed = announced.lapsed.iter();
        table.unknown = lapsed.filter(|pod| **pod != self.me && !table.peers.contains_key(*pod)).cloned().collect();
        self.show(&table, announced.members);
        changes
    }

    fn show(&self, table: &Table, members: usize) {
        let lapsed = table.peers.values().filter(|peer| peer.lapsed).count();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.peers.with_label_values(&[PeerState::Lapsed.as_str()]).set(count(lapsed));
        self.metrics.peers.with_label_values(&[PeerState::Alive.as_str()]).set(count(table.peers.len() - lapsed));
        // Where only some of the members were read, the others are unknown too.
        let unread = members.saturating_sub(MAX_PODS);
        self.metrics.peers.with_label_values(&[PeerState::Unknown.as_str()]).set(count(table.unknown.len() + unread));
    }

    /// Takes note of a pod that made itself known to this one: it lives.
    pub(crate) fn meet(&self, pod: &PodRecord) {
        if pod.id != self.me {
            self.write().meet(pod);
            self.metrics.know_peer(pod.id.as_str());
        }
    }

    /// Takes note of what a peer says of others. Those that this pod does not know count as lapsed (it has seen no key of theirs)
    /// until an announcement shows more; those that it knows, or found dead lately, are none of the peer's business. Returns
    /// those that are new.
    pub(crate) fn hear_of(&self, pods: Vec<PodRecord>) -> Vec<PodRecord> {
        let mut table = self.write();
        let now = Instant::now();
        let mut news = Vec::new();
        for pod in pods {
            let retired =
                table.retired.get(&pod.id).is_some_and(|(start, at)| *start == pod.started_at && now < *at + RETIRED_FOR);
            if pod.id == self.me || retired || table.peers.contains_key(&pod.id) || table.peers.len() >= MAX_PODS {
                continue;
            }
            table.unknown.remove(&pod.id);
            table.unheard.forget(&pod.id);
            table.peers.insert(pod.id.clone(), Peer { record: Arc::new(pod.clone()), lapsed: true });
            news.push(pod);
        }
        news
    }

    /// The peers without a liveness key.
    #[must_use]
    pub fn lapsed(&self) -> Vec<PodRecord> {
        self.read().peers.values().filter(|peer| peer.lapsed).map(|peer| PodRecord::clone(&peer.record)).collect()
    }

    /// The peers that have a liveness key, as of the last reading of the members.
    #[must_use]
    pub fn live(&self) -> Vec<PodId> {
        self.read().peers.values().filter(|peer| !peer.lapsed).map(|peer| peer.record.id.clone()).collect()
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
            None if table.unknown.contains(pod) => Known::Unlisted,
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
        self.write().retire(pod);
    }

    // ---- trust ----

    /// Takes over the epoch. True if it is another than before: the store has lost data, and look-ups are not trusted for a
    /// while.
    pub(crate) fn note_epoch(&self, epoch: &Epoch) -> bool {
        let mut table = self.write();
        let lost = table.epoch.as_ref().is_some_and(|known| known != epoch);
        if lost {
            table.settling_until = Some(Instant::now() + self.settle_for);
        }
        table.epoch = Some(epoch.clone());
        lost
    }

    /// Takes over the incarnation that gave an answer. True if it is a later one than before: the store may have lost data, and
    /// look-ups are not trusted for a while, that answer included. An answer of an earlier one is late, and says nothing new.
    pub(crate) fn note_incarnation(&self, incarnation: Incarnation) -> bool {
        let mut table = self.write();
        let lost = table.incarnation.is_some_and(|known| known < incarnation);
        if lost {
            table.settling_until = Some(Instant::now() + self.settle_for);
        }
        table.incarnation = table.incarnation.max(Some(incarnation));
        lost
    }

    /// Trusts no look-up for so long at least.
    pub(crate) fn doubt_for(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut table = self.write();
        table.settling_until = table.settling_until.max(Some(until));
    }

    /// Waits until something gives reason to announce this pod at once: a look-up met another epoch, or another life of the
    /// store.
    pub(crate) async fn refresh_requests(&self) {
        self.refresh_requests.notified().await;
    }

    /// Numbers a reading of the members that begins now.
    pub(crate) fn begin_reading(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Notes that a reading has been taken over.
    pub(crate) fn end_reading(&self, reading: u64) {
        self.ended.send_replace(reading);
    }

    /// Asks for a new reading of the members and waits for it, for a short while. False if none came. One that had begun before
    /// says nothing of what came after.
    pub(crate) async fn refreshed(&self) -> bool {
        let mut ended = self.ended.subscribe();
        let before = self.begun.load(Ordering::SeqCst);
        self.refresh_requests.notify_one();
        matches!(tokio::time::timeout(REFRESH_WAIT, ended.wait_for(|reading| *reading > before)).await, Ok(Ok(_)))
    }

    /// The members without a liveness key that this pod never knew: they can't be probed.
    #[must_use]
    pub fn unknown(&self) -> Vec<PodId> {
        self.read().unknown.iter().cloned().collect()
    }

    /// Notes that the store could not be asked: whatever it says when it is back may be old, and is not trusted for a while.
    pub(crate) fn note_store_trouble(&self) {
        self.write().settling_until = Some(Instant::now() + self.settle_for);
    }

    /// Are look-ups not to be trusted now?
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.read().settling_until.is_some_and(|until| Instant::now() < until)
    }

    // ---- where events go ----

    /// Finds the peers for each of the routes, in one round trip to the store, and one more where pods stand there that this one
    /// has not met. Never fails: without a trustworthy answer, all peers are meant.
    pub async fn targets(&self, routes: &dyn Routes, keys: &[RouteKey]) -> Targets {
        let backs_off = self.read().store_backs_off_until.is_some_and(|until| Instant::now() < until);
        let answer = if backs_off { None } else { self.look_up(routes, keys).await };
        let Some(lookup) = answer else {
            self.note_store_trouble();
            self.metrics.route_lookups_total.with_label_values(&[RouteLookup::Error.as_str()]).inc();
            let all: Vec<_> = self.read().peers.values().map(|peer| Arc::clone(&peer.record)).collect();
            return Targets { peers: vec![all; keys.len()], doubtful: vec![None; keys.len()] };
        };
        let lost = self.note_incarnation(lookup.incarnation);
        if lost || self.read().epoch != lookup.epoch {
            self.note_store_trouble();
            self.refresh_requests.notify_one();
        }
        if !lookup.refused.is_empty() {
            self.note_refused(lookup.refused.iter().filter_map(|place| keys.get(*place)));
        }
        let settling = self.is_settling();
        let outcome = if settling { RouteLookup::Settling } else { RouteLookup::Trusted };
        self.metrics.route_lookups_total.with_label_values(&[outcome.as_str()]).inc();
        let (mut targets, unknown) = self.choose(&lookup, keys, settling);
        if !unknown.is_empty() {
            self.resolve(routes, keys, unknown, &mut targets).await;
        }
        targets
    }

    /// Asks the store, unless it refuses or is away; then it is left alone for a while.
    async fn look_up(&self, routes: &dyn Routes, keys: &[RouteKey]) -> Option<Lookup> {
        let answer = routes.lookup(&self.me, keys).await;
        self.write().store_backs_off_until = answer.is_err().then(|| Instant::now() + STORE_REST);
        answer.inspect_err(|error| log_store_error!(error, "routes could not be looked up; events go to every peer")).ok()
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

    /// Where events go as far as this pod knows, and the pods that it does not know, each with the places of its routes.
    fn choose(&self, lookup: &Lookup, keys: &[RouteKey], settling: bool) -> (Targets, IndexMap<PodId, Vec<usize>>) {
        let table = self.read();
        let now = Instant::now();
        let mut doubtful = vec![None; lookup.pods.len()];
        let mut unknown: IndexMap<PodId, Vec<usize>> = IndexMap::new();
        let of_route = |(place, on_route): (usize, &Vec<PodId>)| {
            for pod in on_route.iter().filter(|pod| **pod != self.me && !table.peers.contains_key(*pod)) {
                if table.unheard.is_foreign(pod, now) {
                    continue;
                }
                let room = unknown.len() < MAX_UNKNOWN;
                match unknown.get_mut(pod) {
                    _ if table.unknown.contains(pod) => doubtful[place] = Some(pod.clone()),
                    Some(places) => places.push(place),
                    None if room => {
                        unknown.insert(pod.clone(), vec![place]);
                    }
                    None => doubtful[place] = Some(pod.clone()),
                }
            }
            let refused = table.refused.get(&keys[place]).is_some_and(|until| now < *until);
            if refused && let Some(unlisted) = table.unknown.iter().next() {
                doubtful[place] = Some(unlisted.clone());
            }
            let all = settling || refused || lookup.unread.binary_search(&place).is_ok();
            let wanted = |peer: &&Peer| all || peer.lapsed || on_route.contains(&peer.record.id);
            table.peers.values().filter(wanted).map(|peer| Arc::clone(&peer.record)).collect()
        };
        let peers = lookup.pods.iter().enumerate().map(of_route).collect();
        (Targets { peers, doubtful }, unknown)
    }

    /// A pod on a route that is in no table is newer than ours, has been dead for long, or is none of the fleet. The store is
    /// asked about just those, now: what was read before says nothing of them.
    async fn resolve(&self, routes: &dyn Routes, keys: &[RouteKey], unknown: IndexMap<PodId, Vec<usize>>, targets: &mut Targets) {
        let asked = Instant::now();
        let named =
            |(pod, places): (&PodId, &Vec<usize>)| (pod.clone(), places.iter().map(|place| keys[*place].clone()).collect());
        let pods: Vec<(PodId, Vec<RouteKey>)> = unknown.iter().map(named).collect();
        let answer = routes.resolve(&pods, !self.is_settling()).await;
        // An answer of another life of the store says as little as none.
        let answer =
            answer.inspect_err(|error| log_store_error!(error, "pods on routes could not be looked up; they count as unknown"));
        let standings =
            answer.ok().and_then(|(incarnation, standings)| (!self.note_incarnation(incarnation)).then_some(standings));
        let Some(standings) = standings else {
            self.note_store_trouble();
            for (pod, places) in &unknown {
                targets.add_unknown(pod, places);
            }
            return;
        };
        let mut table = self.write();
        for ((pod, places), standing) in unknown.into_iter().zip(standings) {
            let in_doubt = match standing {
                Standing::Alive(record) => {
                    table.meet(&record);
                    let record = Arc::new(record);
                    places.iter().for_each(|place| targets.peers[*place].push(Arc::clone(&record)));
                    false
                }
                Standing::Member => true,
                Standing::Gone => {
                    tracing::debug!(peer.id = %pod, routes = places.len(), "a dead pod was taken out of routes");
                    false
                }
                Standing::Unheard => !table.unheard.note(&pod, asked),
            };
            if in_doubt {
                targets.add_unknown(&pod, &places);
            }
        }
    }
}

impl Table {
    /// A pod that lives. Returns what was known of it before. More than a fleet has are not kept.
    fn meet(&mut self, record: &PodRecord) -> Option<Peer> {
        if self.peers.len() >= MAX_PODS && !self.peers.contains_key(&record.id) {
            return None;
        }
        self.unknown.remove(&record.id);
        self.unheard.forget(&record.id);
        self.retired.remove(&record.id);
        self.peers.insert(record.id.clone(), Peer { record: Arc::new(record.clone()), lapsed: false })
    }

    /// A pod that is dead or gone. True if it was there.
    fn retire(&mut self, pod: &PodId) -> bool {
        let Some(peer) = self.peers.remove(pod) else { return false };
        let now = Instant::now();
        if self.retired.len() >= MAX_PODS {
            self.retired.retain(|_, (_, at)| now < *at + RETIRED_FOR);
        }
        if self.retired.len() < MAX_PODS {
            self.retired.insert(pod.clone(), (peer.record.started_at, now));
        }
        true
    }
}

#[cfg(test)]
mod tests;
