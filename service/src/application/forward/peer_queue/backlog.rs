//! What waits for one peer, and how much may.
//!
//! Whatever is queued, in a call or parked for a peer is unsettled, and the stream allows only so many unsettled events over the
//! whole fleet: what one peer holds, all others go without. So a peer that answers may have any burst in its queue; one that is
//! silent has a share, and past that its events are given up.
//!
//! Told the time; takes no lock and calls nobody.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use daisi_ws_domain::breaker::Breaker;
use tokio::time::Instant;

use crate::application::forward::{
    in_flight::{Target, TargetOutcome},
    limits::ForwardLimits,
};

/// Events and bytes of one call: enough to share its cost, little enough for a frame of a megabyte or two.
pub(super) const MAX_EVENTS: usize = 256;
const MAX_BYTES: usize = 1 << 20;
/// Events that may queue for a peer that is well; past that they are parked at once.
const CAPACITY: usize = 8192;
/// Bytes that may queue for a peer that is well, and for one that is not; past that events are parked, which takes no memory
/// here.
const WELL_BYTES: usize = 64 << 20;
const UNWELL_BYTES: usize = 8 << 20;
/// A peer that has not answered for this long may be about to fail: from now on its events count. A pod that is merely busy
/// answers sooner.
const SLOW_AFTER: Duration = Duration::from_millis(250);
/// From now on events don't wait behind the call that is not answered: another pod may get through.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// From now on they have the small share of a peer that can't be reached.
const UNWELL_AFTER: Duration = Duration::from_secs(2);

/// How often silence is looked at. What passes between two looks counts for no more than twice as much: a pod that stood still
/// itself must not take that for its peers' silence.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// How a peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It answers.
    Well,
    /// It has not answered for a moment, or can't keep up.
    Slow,
    /// It can't be reached.
    Unwell,
}

/// What is known of other peers: the unsettled events of those that are not well, and the bytes of all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others {
    pub(super) unwell: usize,
    pub(super) bytes_left: usize,
}

/// What one queue adds to the sums over all peers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Unsettled events, if the peer is not well.
    pub(super) unwell: usize,
    pub(super) bytes: usize,
    /// One, unless the peer is gone.
    pub(super) peer_queues: usize,
    /// One, if it can't be reached.
    pub(super) unreachable: usize,
}

/// The queue of one peer, and what else is unsettled for it.
#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) breaker: Breaker,
    /// Since when each waits.
    waiting: VecDeque<(Instant, Target)>,
    waiting_bytes: usize,
    /// In the call that is under way.
    calling: usize,
    calling_bytes: usize,
    /// Until when each parked event counts: then the stream delivers it again.
    parked: BinaryHeap<Reverse<Instant>>,
    /// How long the peer has not answered, as of when; `None` if no call is without an answer.
    silent: Option<(Duration, Instant)>,
    /// When a call last ended without an answer. What was seen long ago says nothing of now.
    failed_at: Option<Instant>,
    /// What becomes of events for a peer that is gone.
    gone: Option<TargetOutcome>,
    /// What this queue adds to the sums over all peers.
    pub(super) counted: Counted,
}

impl Backlog {
    pub(super) fn new(breaker: Breaker) -> Self {
        Self {
            breaker,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            calling: 0,
            calling_bytes: 0,
            parked: BinaryHeap::new(),
            silent: None,
            failed_at: None,
            gone: None,
            counted: Counted::default(),
        }
    }

    pub(super) fn health(&self, now: Instant) -> Health {
        let silent = self.silence(now);
        let waits = self.waiting.front().map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(*since));
        if !self.breaker.is_closed() || silent >= UNWELL_AFTER {
            Health::Unwell
        } else if silent >= SLOW_AFTER || waits >= STUCK_AFTER {
            Health::Slow
        } else {
            Health::Well
        }
    }

    fn silence(&self, now: Instant) -> Duration {
        let is_old = self.failed_at.is_some_and(|at| now.saturating_duration_since(at) >= UNWELL_AFTER);
        let silent = self.silent.filter(|_| self.calling > 0 || !is_old);
        silent.map_or(Duration::ZERO, |(so_far, seen_at)| so_far + now.saturating_duration_since(seen_at).min(2 * TICK))
    }

    /// Events that are unsettled for the peer.
    pub(super) fn held(&self) -> usize {
        self.waiting.len() + self.calling + self.parked.len()
    }

    /// Bytes that are kept for the peer.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.calling_bytes
    }

    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// May one more event be unsettled for the peer?
    fn has_room(&mut self, now: Instant, limits: &ForwardLimits, others: Others) -> bool {
        self.forget_redelivered(now);
        let (one, all) = match self.health(now) {
            Health::Well => return true,
            Health::Slow => (limits.slow, limits.slow),
            Health::Unwell => (limits.peer, limits.all),
        };
        self.held() < one && self.held() + others.unwell < all
    }

    /// Queues an event, or says what becomes of it. `Ok(true)`: nobody works on the queue yet.
    pub(super) fn offer(
        &mut self,
        target: Target,
        now: Instant,
        limits: &ForwardLimits,
        others: Others,
    ) -> Result<bool, (Target, TargetOutcome)> {
        if let Some(outcome) = self.gone {
            return Err((target, outcome));
        }
        if !self.has_room(now, limits, others) {
            return Err((target, TargetOutcome::GivenUp));
        }
        let bytes = target.bytes();
        let is_well = self.health(now) == Health::Well;
        let room = if is_well { WELL_BYTES } else { UNWELL_BYTES }.saturating_sub(self.bytes()).min(others.bytes_left);
        let is_full = self.waiting.len() >= CAPACITY || (bytes > room && self.bytes() > 0);
        if is_full || self.is_stuck(now) {
            return Err((target, TargetOutcome::Parked));
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back((now, target));
        Ok(self.waiting.len() == 1 && self.calling == 0)
    }

    /// Takes what goes in the next call; empty if nothing waits.
    pub(super) fn next_batch(&mut self, now: Instant) -> Vec<Target> {
        if self.silence(now).is_zero() {
            self.silent = None;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < MAX_EVENTS
            && bytes < MAX_BYTES
            && let Some((_, target)) = self.waiting.pop_front()
        {
            bytes += target.bytes();
            batch.push(target);
        }
        self.waiting_bytes -= bytes;
        (self.calling, self.calling_bytes) = (batch.len(), bytes);
        batch
    }

    /// What was in the call is no longer.
    pub(super) fn call_ended(&mut self) {
        (self.calling, self.calling_bytes) = (0, 0);
    }

    /// A call begins.
    pub(super) fn asked(&mut self, now: Instant) {
        self.silent.get_or_insert((Duration::ZERO, now));
    }

    /// The call is still without an answer.
    pub(super) fn tick(&mut self, now: Instant) {
        self.silent = self.silent.map(|_| (self.silence(now), now));
    }

    /// Must nothing wait behind the call any longer?
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.calling > 0 && self.silence(now) >= STUCK_AFTER
    }

    /// A call ended without an answer.
    pub(super) fn not_answered(&mut self, now: Instant) {
        self.failed_at = Some(now);
    }

    /// The peer answered, whatever it said.
    pub(super) fn answered(&mut self) {
        self.silent = None;
    }

    /// A sign of life without an answer to what was asked: the call that is under way has as long as one that begins now.
    pub(super) fn alive(&mut self, now: Instant) {
        self.silent = (self.calling > 0).then_some((Duration::ZERO, now));
    }

    /// Takes all that waits.
    pub(super) fn take_waiting(&mut self) -> Vec<Target> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting).into_iter().map(|(_, target)| target).collect()
    }

    /// Counts an event that is given back until then. False if the peer has no room for it.
    pub(super) fn park(&mut self, until: Instant, now: Instant, limits: &ForwardLimits, others: Others) -> bool {
        let has_room = self.gone.is_some() || self.has_room(now, limits, others);
        if has_room {
            self.parked.push(Reverse(until));
        }
        has_room
    }

    pub(super) fn forget_redelivered(&mut self, now: Instant) {
        while self.parked.peek().is_some_and(|Reverse(until)| *until <= now) {
            self.parked.pop();
        }
    }

    /// Takes nothing more, and hands out what waits.
    pub(super) fn close(&mut self, outcome: TargetOutcome) -> Vec<Target> {
        self.gone.get_or_insert(outcome);
        self.parked.clear();
        self.take_waiting()
    }

    /// What became of the peer's events, if it is gone.
    pub(super) fn gone(&self) -> Option<TargetOutcome> {
        self.gone
    }
}
