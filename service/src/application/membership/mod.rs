//! This pod's place in the fleet: announces it, learns who else is there, and decides who is dead.
//!
//! Announcing waits for nothing but the store: what follows from it (registering again, judging, getting to know peers) is done beside, or a pod would
//! lose its own place over looking after others.

mod acquaint;
mod contest;
mod judge;

use std::{sync::Arc, time::Duration};

use contest::{Contest, Step};
use daisi_ws_domain::{
    gap::{Gap, GapCause},
    peer::PodRecord,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{fleet::directory::Directory, forward::forwarder::Forwarder, hub::registry::Hub, routes::writer::RouteWriter};
use crate::{
    ports::{Announce, AnnounceError, Announcement, IdTaken, Incarnation, MAX_PODS, Peers, Routes, StoreError, log_store_error},
    readiness::{Dependency, Readiness},
    runtime::backoff::Backoff,
    telemetry::Chain,
};

/// Announcements within the life of a liveness key: so many may fail before the key lapses.
const ANNOUNCEMENTS_PER_TTL: u32 = 5;
/// Pause before routes that could not be registered again are tried anew; the writer has a back-off of its own.
const REGISTER_PAUSES: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));

/// How far this pod has its place in the fleet.
#[derive(Debug, Clone)]
pub struct Place {
    /// True once it is announced and its peers know it: it may have sessions and routes.
    pub taken: Arc<watch::Sender<bool>>,
    /// True once it may take events too.
    pub joined: Arc<watch::Sender<bool>>,
    /// Cancelled when another process lives under its id: it must touch nothing that is kept under that id any more.
    pub lost: CancellationToken,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            taken: Arc::new(watch::Sender::new(false)),
            joined: Arc::new(watch::Sender::new(false)),
            lost: CancellationToken::new(),
        }
    }
}

/// What membership works with.
#[derive(Clone)]
pub struct Membership {
    /// This pod, as announced.
    pub me: PodRecord,
    /// Life of the liveness key.
    pub ttl: Duration,
    /// Where members and keys are kept.
    pub routes: Arc<dyn Routes>,
    /// Probes lapsed peers, and introduces this one.
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
    /// Told how far this pod has come.
    pub place: Place,
}

/// What one announcement remembers for the next.
#[derive(Debug, Default)]
struct Memory {
    /// When the last one ended; long ago means that this process stood still.
    ran_at: Option<Instant>,
    /// Retirements as of the last announcement.
    retirements: Option<u64>,
    /// The store's incarnation as of the last announcement.
    incarnation: Option<Incarnation>,
    /// The store may have lost what was registered before.
    owes_registration: bool,
    /// When everything was registered again the last time.
    registered_at: Option<Instant>,
    store_trouble: Option<&'static str>,
    crowded: bool,
    contest: Contest,
    /// A record of a dead process under this pod's id, which the next announcement replaces.
    instead_of: Option<PodRecord>,
}

/// What is to be done beside announcing.
#[derive(Debug, Default)]
struct Beside {
    /// Register everything again; true if the sessions have to be told of a gap.
    register: watch::Sender<Registering>,
    /// An announcement has shown who is there.
    shown: Notify,
    /// The first announcement was not of a pod that made the epoch, or another followed.
    settled: watch::Sender<bool>,
}

/// How often everything had to be registered again, and how often the sessions have to be told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Registering {
    rounds: u64,
    gaps: u64,
}

impl Membership {
    /// Announces this pod, several times within the life of its key, until it leaves or its id is another's. No announcement is under way when this has returned: one
    /// that is overtaken by the pod's goodbye would make it a member again.
    pub async fn run(&self, leaving: &CancellationToken) {
        let beside = Beside::default();
        tokio::select! {
            biased;
            () = self.announce_until(leaving, &beside) => {}
            () = self.register_again(&beside) => {}
            () = self.judge() => {}
            () = self.get_acquainted(&beside) => {}
        }
    }

    fn period(&self) -> Duration {
        self.ttl / ANNOUNCEMENTS_PER_TTL
    }

    async fn announce_until(&self, leaving: &CancellationToken, beside: &Beside) {
        let period = self.period();
        let mut memory = Memory::default();
        while !leaving.is_cancelled() && !self.place.lost.is_cancelled() {
            let started = Instant::now();
            let stood_still = memory.ran_at.is_some_and(|at| at.elapsed() > self.ttl);
            let known: Vec<_> = self.directory.peers().into_iter().map(|peer| peer.id).collect();
            let instead_of = memory.instead_of.take();
            let call = Announce { me: &self.me, ttl: self.ttl, known: &known, instead_of: instead_of.as_ref() };
            let mut wait = period;
            let reading = self.directory.begin_reading();
            match self.routes.announce(call).await {
                Ok(announcement) => {
                    self.follow_up(&announcement, stood_still, &mut memory, beside);
                    self.directory.end_reading(reading);
                }
                Err(AnnounceError::Store(error)) => self.without_store(&error, &mut memory),
                Err(AnnounceError::Taken(taken)) => {
                    tokio::select! {
                        biased;
                        () = leaving.cancelled() => return,
                        () = self.contend(&taken, &mut memory) => {}
                    }
                    wait = period / ANNOUNCEMENTS_PER_TTL;
                }
            }
            memory.ran_at = Some(Instant::now());
            tokio::select! {
                () = leaving.cancelled() => {}
                () = tokio::time::sleep_until(started + wait) => {}
                // At most ten announcements a second, whatever asks for them.
                () = async { tokio::time::sleep(period / 10).await; self.directory.refresh_requests().await } => {}
            }
        }
    }

    fn without_store(&self, error: &StoreError, memory: &mut Memory) {
        let kind = error.as_str();
        if memory.store_trouble.replace(kind) != Some(kind) {
            let (cause, advice) = (Chain(error), error.advice());
            if error.is_away() {
                tracing::warn!(error = %cause, error.kind = kind, error.advice = advice, "the session store is away; sockets stay, and events go to every peer");
            } else {
                tracing::error!(
                    error = %cause, error.kind = kind, error.advice = advice,
                    "the session store answers and refuses this pod's announcement; sockets stay, and events go to every peer"
                );
            }
        }
        // Anybody may read it: the cause, which may name files, is for the log.
        self.readiness.observe_trouble(Dependency::Redis, format!("redis: {error}: {advice}", advice = error.advice()));
        self.directory.note_store_trouble();
    }

    /// What follows from an announcement. Waits for nothing.
    fn follow_up(&self, announcement: &Announcement, stood_still: bool, memory: &mut Memory, beside: &Beside) {
        memory.contest = Contest::default();
        let retirements = memory.retirements.replace(announcement.retirements);
        let first = retirements.is_none();
        let store_was_away = memory.store_trouble.take().is_some();
        let store_lost_data = self.directory.note_epoch(&announcement.epoch);
        self.directory.note_incarnation(announcement.incarnation);
        if first {
            // Who has just come can't tell whether the store lost data a moment ago. Whoever is on it does so within a period, and registers again.
            self.directory.doubt_for(self.period() * 2);
        }
        // A look-up may have noted it before: what counts is when this pod last registered.
        let incarnation = memory.incarnation.replace(announcement.incarnation);
        memory.owes_registration |= incarnation.is_some_and(|known| known != announcement.incarnation);
        self.take_over(announcement, memory);
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
            beside.register.send_modify(|register| {
                register.rounds += 1;
                register.gaps += u64::from(passed_over);
            });
        }
        beside.shown.notify_one();
        // The store is new, or of some time ago: pods that outlived it announce themselves within a period. Taking events before that would miss their sessions.
        let others_lapsed = announcement.lapsed.iter().any(|pod| *pod != self.me.id);
        if !first || !(announcement.epoch_created || others_lapsed) {
            beside.settled.send_replace(true);
        }
        if *self.place.taken.borrow() {
            self.readiness.observe(Dependency::Redis, true);
            self.join(beside);
        }
    }

    fn take_over(&self, announcement: &Announcement, memory: &mut Memory) {
        let changes = self.directory.take_over(announcement);
        for peer in changes.news {
            tracing::info!(peer.id = %peer.id, peer.address = %peer.address, "a peer is there");
            self.forwarder.hint(&peer);
        }
        for pod in changes.left {
            tracing::info!(peer.id = %pod, "a peer has left");
            self.forwarder.forget(&pod);
            self.peers.forget(&pod);
        }
        let crowded = announcement.members > MAX_PODS;
        if crowded && !std::mem::replace(&mut memory.crowded, crowded) {
            tracing::warn!(
                members = announcement.members,
                "more members stand in the session store than any fleet has: somebody else writes there; those without a key are taken out bit by bit"
            );
        }
        memory.crowded = crowded;
    }

    fn join(&self, beside: &Beside) {
        if *beside.settled.borrow() {
            self.place.joined.send_if_modified(|joined| !std::mem::replace(joined, true));
        }
    }

    /// Another process holds this pod's id. One that answers, or renews its key, lives, and this pod has to go. Any other is waited for: its key lapses.
    async fn contend(&self, taken: &IdTaken, memory: &mut Memory) {
        // Who has never been announced has just bound its address, so nobody else can be there.
        let mut step = memory.contest.look(taken, Instant::now());
        if memory.retirements.is_none() && taken.record.address == self.me.address {
            memory.instead_of = Some(taken.record.clone());
            step = Step::Wait;
        } else if step == Step::Wait && self.peers.probe(&taken.record).await.is_ok() {
            step = Step::Yield;
        }
        if step == Step::Yield {
            tracing::error!(
                other.address = %taken.record.address, own.address = %self.me.address,
                "another pod lives under this pod's id: this one ends; give each a name of its own (server.pod_id)"
            );
            self.directory.note_store_trouble();
            self.place.taken.send_replace(false);
            self.place.lost.cancel();
        }
    }

    /// Writes all routes again whenever that is needed, and then tells the sessions of a gap if others may have routed past this pod: not before, or what is
    /// missed until the routes are there would go untold.
    async fn register_again(&self, beside: &Beside) {
        let mut wanted = beside.register.subscribe();
        let (mut done, mut pauses) = (Registering::default(), REGISTER_PAUSES);
        loop {
            let now = *wanted.borrow_and_update();
            if now.rounds == done.rounds {
                let _ = wanted.changed().await;
                continue;
            }
            if let Err(error) = self.writer.reassert().await {
                log_store_error!(&error, "routes could not be registered again; trying on");
                tokio::time::sleep(pauses.pause()).await;
                continue;
            }
            pauses.reset();
            if now.gaps > done.gaps {
                let told = self.hub.announce(None, Gap::unknown(GapCause::PodResumed));
                tracing::warn!(
                    sessions = told,
                    "events may have gone past this pod (it was taken for dead, or takes no gaps from a peer); its sessions are told of a gap"
                );
            }
            done = now;
        }
    }
}
