//! What this pod knows of the fleet: which pods are there, how far the store's routes can be trusted, and so where an event has
//! to go.

mod passed_over;
mod table;
mod targets;
mod unheard;

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::{gap::Gap, ids::PodId, maps::Set, peer::PodRecord};
use tokio::{sync::Notify, time::Instant};

use self::table::{RETIRED_FOR, Table};
pub use self::targets::Targets;
use crate::{
    metrics::{Metrics, labels::PeerState},
    ports::{Announcement, Epoch, Goodbye, Incarnation, MAX_PODS},
    runtime::watched::Watched,
};

/// How long one waits for the members to be read anew.
const REFRESH_WAIT: Duration = Duration::from_secs(1);
/// For so long after it was found dead, a pod's own word that it lives is not enough.
const NOT_BELIEVED_FOR: Duration = Duration::from_secs(10);
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
    ended: Watched<u64>,
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
            ended: Watched::new(0),
            metrics,
        }
    }

    /// The pod whose table this is; it never stands in it.
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
            match table.find(record) {
                Some(before) if !before.lapsed && *before.record == *record => {}
                _ if table.peers.contains_key(&record.id) => changes.news.push(record.clone()),
                _ => {}
            }
        }
        for Goodbye { pod, started_at } in &announced.left {
            // One that began later has said nothing: the store went back to the goodbye of the process before it.
            let is_gone = table.peers.get(pod).is_some_and(|peer| peer.record.started_at <= *started_at);
            if is_gone && table.retire(pod) {
                changes.left.push(pod.clone());
            }
        }
        let alive: Set<&PodId> = announced.pods.iter().map(|record| &record.id).collect();
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

    /// Takes note of a pod that made itself known to this one: it lives. Whether it has a liveness key, announcements tell: one
    /// without, which makes itself known again and again, is lapsed still, and so is who was found dead.
    ///
    /// One that was found dead just now is not believed: it may reach this pod, and not be reached. It makes itself known again, or
    /// the store shows it; what is settled without it meanwhile is noted.
    pub(crate) fn meet(&self, pod: &PodRecord) {
        if pod.id != self.me {
            let mut table = self.write();
            let dead = table.retired.get(&pod.id).filter(|dead| dead.started_at == pod.started_at).copied();
            if dead.is_some_and(|dead| Instant::now() < dead.at + NOT_BELIEVED_FOR) {
                return;
            }
            let was_dead = dead.is_some();
            let before = table.meet(pod);
            let is_lapsed = was_dead || before.is_some_and(|before| before.lapsed && before.record.started_at == pod.started_at);
            if let Some(peer) = table.peers.get_mut(&pod.id) {
                peer.lapsed = is_lapsed;
            }
            drop(table);
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
            let retired = table
                .retired
                .get(&pod.id)
                .is_some_and(|known| known.started_at == pod.started_at && now < known.at + RETIRED_FOR);
            if pod.id == self.me || retired || table.peers.contains_key(&pod.id) || table.peers.len() >= MAX_PODS {
                continue;
            }
            table.hear_of(&pod);
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

    /// All peers, by their ids, while nothing is in doubt: each has a liveness key, there is no other member, and look-ups can be
    /// trusted.
    #[must_use]
    pub(crate) fn undoubted(&self) -> Option<Vec<Arc<PodRecord>>> {
        let table = self.read();
        let has_doubts = table.is_settling(Instant::now()) || !table.unknown.is_empty();
        if has_doubts || table.peers.values().any(|peer| peer.lapsed) {
            return None;
        }
        let mut peers: Vec<_> = table.peers.values().map(|peer| Arc::clone(&peer.record)).collect();
        peers.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Some(peers)
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

    // ---- who was passed over ----

    /// Notes events whose targets are not certain: whoever is met later for the first time may have missed them.
    pub(crate) fn note_uncertain(&self, seqs: impl IntoIterator<Item = u64>) {
        let (mut table, now) = (self.write(), Instant::now());
        seqs.into_iter().for_each(|seq| table.passed_over.note(seq, now));
    }

    /// Notes events that are settled by what this pod knows now: a pod that it found dead does not get them.
    pub(crate) fn note_settled(&self, seqs: impl Iterator<Item = u64>) {
        if self.read().retired.is_empty() {
            return;
        }
        let range =
            |range: Option<(u64, u64)>, seq| Some(range.map_or((seq, seq), |(first, last)| (first.min(seq), last.max(seq))));
        let Some((first, last)) = seqs.fold(None, range) else { return };
        for retired in self.write().retired.values_mut() {
            retired.settled = range(range(retired.settled, first), last);
        }
    }

    /// Takes the gaps that sessions of peers are owed because this pod did not know them, or took them for dead.
    pub(crate) fn take_debts(&self) -> Vec<(PodRecord, Gap)> {
        self.write().passed_over.take_debts().collect()
    }

    /// Was a process found, since this was asked last, that did not make itself known to this pod?
    pub(crate) fn take_strangers(&self) -> bool {
        std::mem::take(&mut self.write().has_strangers)
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

    /// Trusts no look-up for so long at least, as who has just come: it makes itself known to all whom it does not know.
    pub(crate) fn doubt_for(&self, time: Duration) {
        self.write().doubting_until = Some(Instant::now() + time);
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
        self.ended.set(reading);
    }

    /// Asks for a new reading of the members and waits for it, for a short while. False if none came. One that had begun before
    /// says nothing of what came after.
    pub(crate) async fn refreshed(&self) -> bool {
        let before = self.begun.load(Ordering::SeqCst);
        self.refresh_requests.notify_one();
        tokio::time::timeout(REFRESH_WAIT, self.ended.wait_for(|reading| reading > before)).await.is_ok()
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
        self.read().is_settling(Instant::now())
    }
}

#[cfg(test)]
mod tests;
