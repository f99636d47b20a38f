//! This pod's place in the fleet: announces it, learns who else is there, and decides who is dead.
//!
//! A pod is dead only when it has no liveness key *and* does not answer a probe, and not while look-ups are settling. Before anybody routes past
//! it, it is taken out of the members: so if it was merely frozen, its next announcement tells it, and it can tell its sessions.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    directory::Directory,
    forward::Forwarder,
    hub::Hub,
    ports::{Announcement, Incarnation, Peers, Routes, StoreError},
    readiness::{Dependency, Readiness},
    route_writer::RouteWriter,
};
use crate::domain::{
    gap::{Gap, GapCause},
    ids::PodId,
    peer::PodRecord,
};

/// Announcements within the life of a liveness key: so many may fail before the key lapses.
const ANNOUNCEMENTS_PER_TTL: u32 = 5;
/// Probes in a row that must fail before a lapsed peer counts as dead.
const FAILED_PROBES: u32 = 2;
/// Rounds after which a member without a key that nobody here ever knew is retired: its address is unknown, so it cannot be probed.
const STRANGER_ROUNDS: u32 = 15;

/// What membership works with.
#[derive(Clone)]
pub struct Membership {
    /// This pod, as announced.
    pub me: PodRecord,
    /// Life of the liveness key.
    pub ttl: Duration,
    /// Where members and keys are kept.
    pub routes: Arc<dyn Routes>,
    /// Probes lapsed peers.
    pub peers: Arc<dyn Peers>,
    /// The table to keep up to date.
    pub directory: Arc<Directory>,
    /// Forgets dead peers.
    pub forwarder: Arc<Forwarder>,
    /// Told of a gap when this pod was taken for dead.
    pub hub: Arc<Hub>,
    /// Writes all routes again when the store lost them.
    pub writer: Arc<RouteWriter>,
    /// Renews all locks at once when the store lost them.
    pub sweep: Arc<Notify>,
    /// Told whether the store answers.
    pub readiness: Readiness,
    /// True once this pod has its place and may take events.
    pub joined: Arc<watch::Sender<bool>>,
}

/// What one round remembers for the next.
#[derive(Debug, Default)]
struct Memory {
    /// When the last round ended; long ago means that this process stood still.
    ran_at: Option<Instant>,
    /// Retirements as of the last announcement.
    retirements: Option<u64>,
    /// The store's incarnation as of the last announcement.
    incarnation: Option<Incarnation>,
    /// The store may have lost what was registered before.
    owes_registration: bool,
    /// When everything was registered again the last time.
    registered_at: Option<Instant>,
    failed_probes: HashMap<PodId, u32>,
    strangers: HashMap<PodId, u32>,
    store_was_away: bool,
    joined: bool,
}

impl Membership {
    /// Announces this pod, several times within the life of its key, until it leaves. No announcement is under way when this has returned: one that is
    /// overtaken by the pod's retirement would make it a member again.
    pub async fn run(&self, leaving: &CancellationToken) {
        let period = self.ttl / ANNOUNCEMENTS_PER_TTL;
        let mut memory = Memory::default();
        while !leaving.is_cancelled() {
            let started = Instant::now();
            let stood_still = memory.ran_at.is_some_and(|at| at.elapsed() > self.ttl);
            let announced = self.routes.announce(&self.me, self.ttl).await;
            let trusted = tokio::select! {
                biased;
                () = leaving.cancelled() => return,
                trusted = self.round(announced, stood_still, &mut memory) => trusted,
            };
            if trusted && !memory.joined {
                memory.joined = true;
                self.joined.send_replace(true);
            }
            let next = started + period;
            tokio::select! {
                () = leaving.cancelled() => {}
                () = tokio::time::sleep_until(next) => {}
                // At most ten announcements a second, whatever the doubts.
                () = async { tokio::time::sleep(period / 10).await; self.directory.doubts().await } => {}
            }
        }
    }

    /// What follows from an announcement. True once this pod may take events.
    async fn round(&self, announced: Result<Announcement, StoreError>, stood_still: bool, memory: &mut Memory) -> bool {
        let trusted = match announced {
            Ok(announcement) => self.follow_up(&announcement, memory, stood_still).await,
            Err(error) => {
                if !std::mem::replace(&mut memory.store_was_away, true) {
                    tracing::warn!(%error, "the session store is away; sockets stay, and events go to every peer");
                }
                self.readiness.observe(Dependency::Redis, false);
                self.directory.note_store_trouble();
                memory.joined
            }
        };
        memory.ran_at = Some(Instant::now());
        trusted
    }

    async fn follow_up(&self, announcement: &Announcement, memory: &mut Memory, stood_still: bool) -> bool {
        self.readiness.observe(Dependency::Redis, true);
        let retirements = memory.retirements.replace(announcement.retirements);
        let first = retirements.is_none();
        let store_was_away = std::mem::take(&mut memory.store_was_away);
        let store_lost_data = self.directory.note_epoch(&announcement.epoch);
        self.directory.note_incarnation(announcement.incarnation);
        // A look-up may have noted it before: what counts is when this pod last registered.
        let incarnation = memory.incarnation.replace(announcement.incarnation);
        memory.owes_registration |= incarnation.is_some_and(|known| known != announcement.incarnation);
        for peer in self.directory.set_members(&announcement.pods, &announcement.lapsed) {
            tracing::info!(peer.id = %peer.id, peer.address = %peer.address, "a peer is there");
            memory.failed_probes.remove(&peer.id);
            self.forwarder.hint(&peer);
        }
        // Others took this pod for dead and may have routed past it. Where the count is lost with the data, only our own standstill can tell.
        let count_lost = store_lost_data || retirements > Some(announcement.retirements);
        let passed_over = !first && if count_lost { stood_still } else { retirements != Some(announcement.retirements) };
        // At once, but not all the time where a store throws keys away all the time: events go to every pod meanwhile.
        let due = memory.owes_registration && memory.registered_at.is_none_or(|at| at.elapsed() >= self.ttl);
        if due {
            (memory.owes_registration, memory.registered_at) = (false, Some(Instant::now()));
        }
        if !first && (due || store_was_away || store_lost_data || passed_over || !announcement.was_present) {
            tracing::warn!(store.lost_data = store_lost_data, "registering all routes and locks again");
            self.sweep.notify_one();
            let reasserted = self.writer.reassert().await;
            if passed_over {
                let told = self.hub.announce(None, Gap::unknown(GapCause::PodResumed));
                tracing::warn!(
                    sessions = told,
                    routes.registered = reasserted.is_ok(),
                    "events may have gone past this pod (it was taken for dead, or takes no gaps from a peer); its sessions are told of a gap"
                );
            }
        }
        self.judge(memory).await;
        // The store is new: pods that outlived the old one announce themselves within a period. Taking events before that would miss their sessions.
        memory.joined || !first || !announcement.epoch_created
    }

    /// Probes who has lapsed, and retires who is dead.
    async fn judge(&self, memory: &mut Memory) {
        let lapsed = self.directory.lapsed();
        let answers = join_all(lapsed.iter().map(|peer| self.peers.probe(peer))).await;
        let settling = self.directory.is_settling();
        for (peer, answer) in lapsed.iter().zip(answers) {
            if answer.is_ok() {
                memory.failed_probes.remove(&peer.id);
                continue;
            }
            let failed = memory.failed_probes.entry(peer.id.clone()).or_default();
            *failed += 1;
            if *failed >= FAILED_PROBES && !settling {
                self.retire(&peer.id, memory).await;
            }
        }
        let strangers = self.directory.strangers();
        memory.strangers.retain(|pod, _| strangers.contains(pod));
        for pod in &strangers {
            let rounds = memory.strangers.entry(pod.clone()).or_default();
            *rounds += 1;
            if *rounds >= STRANGER_ROUNDS && !settling {
                let _ = self.routes.retire(pod, true).await;
            }
        }
    }

    async fn retire(&self, pod: &PodId, memory: &mut Memory) {
        // In this order: while it is a member, it is not routed past.
        if self.routes.retire(pod, true).await.is_ok() {
            tracing::warn!(peer.id = %pod, "a peer is dead: no liveness key, and no answer");
            memory.failed_probes.remove(pod);
            self.directory.remove(pod);
            self.forwarder.forget(pod);
            self.peers.forget(pod);
        }
    }
}
