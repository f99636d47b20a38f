//! Whether this pod can bring events where they belong, and what it does with them where it can't.
//!
//! All pods take events from one durable consumer. What a pod has taken nobody else has until it has looked up where it goes and
//! handed it over, so one pod with a bad link makes a part of everybody's events late. Such a pod finds that out by what it waits
//! for anyway (look-ups, calls), and leaves events to others:
//!
//! - The store is slow, and a peer says that it is well: it asks the stream for nothing, and others bring its sockets their
//!   events.
//! - Its peers do not answer, or late: it goes on taking, as the stream is the only way left to its own sockets, and gives each
//!   event back at once, so that another pod brings it to the others. Each pod remembers what its sockets had, so nothing is
//!   doubled.
//!
//! Where all who answer are as bad, nobody leaves anything to anybody. What is given back this way is given back a bounded number
//! of times in all, so no event goes in circles.

mod evidence;
mod probing;
pub(crate) mod pull_gate;
pub(crate) mod stance;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::ids::PodId;
use evidence::Evidence;
pub use probing::Probes;
use tokio::{sync::Notify, time::Instant};

use self::stance::{SLOW, Stance};
use super::fleet::directory::Directory;
use crate::{
    metrics::{Metrics, labels::SteppedBack},
    runtime::watched::Watched,
};

/// How this pod is. Shared by all who wait for the store or for peers.
#[derive(Debug)]
pub struct Wellness {
    directory: Arc<Directory>,
    metrics: Arc<Metrics>,
    evidence: Mutex<Evidence>,
    stance: Watched<Stance>,
    /// Something is bad: there is reason to look.
    stirred: Notify,
    /// Does this pod take events at all?
    takes: AtomicBool,
}

impl Wellness {
    /// A pod that is well, among those of the directory.
    #[must_use]
    pub fn new(directory: Arc<Directory>, metrics: Arc<Metrics>) -> Self {
        Self {
            directory,
            metrics,
            evidence: Mutex::default(),
            stance: Watched::default(),
            stirred: Notify::new(),
            takes: AtomicBool::new(false),
        }
    }

    /// What to do with events now.
    #[must_use]
    pub(crate) fn stance(&self) -> Stance {
        self.stance.get()
    }

    /// Waits until events are given back.
    pub(crate) async fn gives_back(&self) {
        // The sender lives as long as this.
        self.stance.wait_for(Stance::gives_back).await;
    }

    /// Does this pod take events, and bring them where they belong?
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.takes.load(Ordering::Relaxed) && self.lock().is_well(Instant::now())
    }

    /// Notes whether this pod takes events.
    pub(crate) fn takes_events(&self, takes: bool) {
        self.takes.store(takes, Ordering::Relaxed);
    }

    /// The store is asked from now on until what this returns is dropped.
    pub(crate) fn asks_store(&self) -> AskingStore<'_> {
        AskingStore { wellness: self, since: Instant::now() }
    }

    /// The store has not answered for a long time.
    pub(crate) fn store_is_slow(&self) {
        self.note(|evidence, now| evidence.store_is_slow(now));
    }

    /// A peer answered a call after so long.
    pub(crate) fn peer_answered(&self, pod: &PodId, took: Duration) {
        // Nearly always there is nothing to note.
        if took > SLOW || self.lock().is_silent(pod, Instant::now()) {
            self.note(|evidence, now| evidence.peer_answered(pod, took, now));
        }
    }

    /// A peer did not answer a call, or has not for a long time.
    pub(crate) fn peer_is_silent(&self, pod: &PodId) {
        self.note(|evidence, now| evidence.peer_is_silent(pod, now));
    }

    /// Are events for this peer better given back than kept until it answers?
    pub(crate) fn gives_up_on(&self, pod: &PodId) -> bool {
        self.stance().gives_back() && self.lock().is_silent(pod, Instant::now())
    }

    /// Drops what is known of a peer that is gone.
    pub fn forget(&self, pod: &PodId) {
        self.lock().forget(pod);
    }

    fn lock(&self) -> MutexGuard<'_, Evidence> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of something, and of what follows from it.
    fn note(&self, what: impl FnOnce(&mut Evidence, Instant)) {
        let live = self.directory.live();
        let now = Instant::now();
        let mut evidence = self.lock();
        what(&mut evidence, now);
        let stance = evidence.judge(&live, now);
        let (store, peers) = (evidence.is_store_bad(now), evidence.are_peers_bad(now));
        if store || peers {
            self.stirred.notify_one();
        }
        // Under the lock, or an older verdict could come last.
        let before = self.stance.set(stance);
        let gives_back = stance.gives_back();
        self.metrics.stepped_back.with_label_values(&[SteppedBack::Store.as_str()]).set(i64::from(gives_back && store));
        self.metrics.stepped_back.with_label_values(&[SteppedBack::Peers.as_str()]).set(i64::from(gives_back && peers));
        drop(evidence);
        if stance != before {
            tracing::warn!(
                store.slow = store,
                peers.silent = peers,
                ?stance,
                "how this pod treats events for others has changed: where it can't bring them, it leaves them to pods that are \
                well"
            );
        }
    }
}

/// The store is asked. Dropped late, however that ended, it was slow.
#[derive(Debug)]
pub(crate) struct AskingStore<'a> {
    wellness: &'a Wellness,
    since: Instant,
}

impl Drop for AskingStore<'_> {
    fn drop(&mut self) {
        if self.since.elapsed() > SLOW {
            self.wellness.store_is_slow();
        }
    }
}
