//! Announces this pod, and draws from each announcement what follows.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use daisi_ws_domain::peer::PodRecord;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    beside::Beside,
    contest::{Contest, Step},
    neighbours::Neighbours,
    place::Standing,
};
use crate::{
    application::hub::registry::{Hub, Membership},
    ports::{Announce, AnnounceError, Announcement, IdTaken, Incarnation, MAX_PODS, PASSED_OVER, Routes, StoreError},
    telemetry::Chain,
};

/// Announcements within the life of a liveness key: so many may fail before the key lapses.
const ANNOUNCEMENTS_PER_TTL: u32 = 5;

/// From one announcement to the next, and from one judgement of the others to the next, where a liveness key lives for `ttl`.
#[must_use]
pub fn period(ttl: Duration) -> Duration {
    ttl / ANNOUNCEMENTS_PER_TTL
}

/// What announcing works with.
#[derive(Clone)]
pub(crate) struct Announcer {
    /// This pod, as announced.
    pub me: PodRecord,
    /// Life of the liveness key.
    pub ttl: Duration,
    /// Where members and keys are kept.
    pub routes: Arc<dyn Routes>,
    /// Who else is there.
    pub neighbours: Neighbours,
    /// Told whether this pod was a member all the time.
    pub hub: Arc<Hub>,
    /// How far this pod has come.
    pub standing: Standing,
    /// Renews all locks at once when the store lost them.
    pub sweep: Arc<Notify>,
}

/// The time since the announcement before.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// When this one was sent.
    asked: Instant,
    /// This process stood still before.
    stood_still: bool,
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

impl Announcer {
    /// Announces this pod until it leaves or its id is another's.
    pub(super) async fn run(&self, leaving: &CancellationToken, beside: &Beside) {
        let period = period(self.ttl);
        let mut memory = Memory::default();
        while !leaving.is_cancelled() && !self.standing.is_lost() {
            let started = Instant::now();
            let stood_still = memory.ran_at.is_some_and(|at| at.elapsed() > self.ttl);
            let known: Vec<_> = self.neighbours.directory.peers().into_iter().map(|peer| peer.id).collect();
            let instead_of = memory.instead_of.take();
            let call = Announce { me: &self.me, ttl: self.ttl, known: &known, instead_of: instead_of.as_ref() };
            let mut wait = period;
            let reading = self.neighbours.directory.begin_reading();
            match self.routes.announce(call).await {
                Ok(announcement) => {
                    let passed = Passed { asked: started, stood_still };
                    self.follow_up(&announcement, passed, &mut memory, beside);
                    self.neighbours.directory.end_reading(reading);
                }
                Err(AnnounceError::Store(error)) => self.without_store(&error, &mut memory, beside),
                Err(AnnounceError::Taken(taken)) => {
                    tokio::select! {
                        biased;
                        () = leaving.cancelled() => return,
                        () = self.contend(&taken, &mut memory) => {}
                    }
                    wait = period / ANNOUNCEMENTS_PER_TTL;
                }
            }
            self.neighbours.settle_debts();
            memory.ran_at = Some(Instant::now());
            tokio::select! {
                biased;
                () = leaving.cancelled() => {}
                () = tokio::time::sleep_until(started + wait) => {}
                // At most ten announcements a second, whatever asks for them.
                () = async { tokio::time::sleep(period / 10).await; self.neighbours.directory.refresh_requests().await } => {}
            }
        }
    }

    fn without_store(&self, error: &StoreError, memory: &mut Memory, beside: &Beside) {
        let kind = error.as_str();
        if memory.store_trouble.replace(kind) != Some(kind) {
            let (cause, advice) = (Chain(error), error.advice());
            if error.is_away() {
                tracing::warn!(
                    error = %cause, error.kind = kind, error.advice = advice,
                    "the session store is away; sockets stay, and events go to every peer"
                );
            } else {
                tracing::error!(
                    error = %cause, error.kind = kind, error.advice = advice,
                    "the session store answers and refuses this pod's announcement; sockets stay, and events go to every peer"
                );
            }
        }
        self.standing.without_store(error);
        self.neighbours.directory.note_store_trouble();
        if memory.retirements.is_some() {
            beside.is_unseen.store(true, Ordering::Relaxed);
            beside.shown.notify_one();
        }
    }

    /// What follows from an announcement. Waits for nothing.
    fn follow_up(&self, announcement: &Announcement, passed: Passed, memory: &mut Memory, beside: &Beside) {
        memory.contest = Contest::default();
        let retirements = memory.retirements.replace(announcement.retirements);
        let first = retirements.is_none();
        let store_was_away = memory.store_trouble.take().is_some();
        let store_lost_data = self.neighbours.directory.note_epoch(&announcement.epoch);
        self.neighbours.directory.note_incarnation(announcement.incarnation);
        if first {
            // Who has just come can't tell whether the store lost data a moment ago. Anyone who is on it does so within a period,
            // and registers again: at once, or a TTL after the last time.
            self.neighbours.directory.doubt_for(self.ttl + period(self.ttl) * 2);
        }
        // A look-up may have noted it before: what counts is when this pod last registered.
        let incarnation = memory.incarnation.replace(announcement.incarnation);
        memory.owes_registration |= incarnation.is_some_and(|known| known != announcement.incarnation);
        self.neighbours.take_over(announcement);
        note_crowd(announcement, memory);
        // Others took this pod for dead and may have routed past it. Where the count is lost with the data, only our own
        // standstill can tell.
        let count_lost = store_lost_data || retirements > Some(announcement.retirements);
        // Who came while nobody saw this pod in the store may not have known of it.
        let unknown_to_some = self.neighbours.directory.take_strangers() && !announcement.was_present;
        let taken_for_dead = if count_lost { passed.stood_still } else { retirements != Some(announcement.retirements) };
        let passed_over = !first && (taken_for_dead || unknown_to_some);
        // By who could not tell it what was given up, which may be older than the place that its sessions were told.
        let is_owed = passed_over && retirements.is_none_or(|before| announcement.retirements >= before + PASSED_OVER);
        self.hub.note_membership(match (first, passed_over) {
            (true, _) => Membership::Begun,
            (false, true) => Membership::Broken,
            (false, false) => Membership::Unbroken { asked: passed.asked },
        });
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
                register.owed += u64::from(is_owed);
            });
        }
        beside.shown.notify_one();
        // The store is new, or of some time ago: pods that outlived it announce themselves within a period. Taking events before
        // that would miss their sessions.
        let others_lapsed = announcement.lapsed.iter().any(|pod| *pod != self.me.id);
        if !first || !(announcement.epoch_created || others_lapsed) {
            beside.settled.send_replace(true);
        }
        self.standing.confirm(beside);
    }

    /// Another process holds this pod's id. One that answers, or renews its key, lives, and this pod has to go. Any other is
    /// waited for: its key lapses.
    async fn contend(&self, taken: &IdTaken, memory: &mut Memory) {
        // Who has never been announced has just bound its address, so nobody else can be there.
        let mut step = memory.contest.look(taken, Instant::now());
        if memory.retirements.is_none() && taken.record.address == self.me.address {
            memory.instead_of = Some(taken.record.clone());
            step = Step::Wait;
        } else if step == Step::Wait && taken.record.address != self.me.address {
            // At its own address this process would answer for the other: a store that went back names the one before it.
            if self.neighbours.peers.probe(&taken.record).await.is_ok() {
                step = Step::Yield;
            }
        }
        if step == Step::Yield {
            tracing::error!(
                other.address = %taken.record.address, own.address = %self.me.address,
                "another pod lives under this pod's id: this one ends; give each a name of its own (server.pod_id)"
            );
            self.neighbours.directory.note_store_trouble();
            self.standing.lose();
        }
    }
}

fn note_crowd(announcement: &Announcement, memory: &mut Memory) {
    let crowded = announcement.members > MAX_PODS;
    if crowded && !std::mem::replace(&mut memory.crowded, crowded) {
        tracing::warn!(
            members = announcement.members,
            "more members stand in the session store than any fleet has: somebody else writes there; those without a key are \
            taken out bit by bit"
        );
    }
    memory.crowded = crowded;
}
