//! An event in flight: waits for each of its targets, then is settled once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use super::ports::{Settlement, Ticket};
use crate::{
    backoff::Backoff,
    domain::{event::Event, ids::PodId},
};

/// The delays before an event that a live target could not take is delivered again.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

/// Deliveries from which an age is reckoned: past so many, an event is hours old.
const MAX_COUNTED: u64 = 1000;

/// What one target did with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetOutcome {
    /// A socket there took it, now or before.
    Taken,
    /// Nobody there wants it, or nobody is there.
    Nobody,
    /// It could not be reached; later perhaps.
    Parked,
    /// It could not be reached, and that was the last try.
    GivenUp,
}

/// What became of an event, when all targets have spoken.
#[derive(Debug)]
pub struct Settled {
    /// The event.
    pub event: Arc<Event>,
    /// By which it is settled.
    pub ticket: Ticket,
    /// What to tell the stream.
    pub settlement: Settlement,
    /// Did any target take it?
    pub taken: bool,
    /// The peers whose sessions go without, if it is terminated.
    pub given_up: Vec<PodId>,
    _in_flight: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct State {
    waiting: usize,
    taken: bool,
    parked: bool,
    given_up: Vec<PodId>,
    /// Taken out when the last target has spoken.
    rest: Option<(Ticket, OwnedSemaphorePermit)>,
}

/// An event taken from the stream and not settled yet. It holds a permit until then, so that so many and no more are in flight.
#[derive(Debug)]
pub struct InFlight {
    /// The event.
    pub event: Arc<Event>,
    /// How often it has been delivered.
    pub deliveries: u64,
    /// When it was taken.
    pub pulled_at: Instant,
    /// Open until it is settled, if it is traced.
    pub span: Option<tracing::Span>,
    state: Mutex<State>,
    settled: mpsc::UnboundedSender<Settled>,
}

impl InFlight {
    /// An event with `targets` targets, each of which must get a [`Target`]. The queue of settled events is bounded by the permits.
    #[must_use]
    pub fn new(
        (event, span): (Arc<Event>, Option<tracing::Span>),
        deliveries: u64,
        targets: usize,
        (ticket, permit): (Ticket, OwnedSemaphorePermit),
        settled: mpsc::UnboundedSender<Settled>,
    ) -> Arc<Self> {
        let state = State { waiting: targets, taken: false, parked: false, given_up: Vec::new(), rest: Some((ticket, permit)) };
        Arc::new(Self { event, deliveries, pulled_at: Instant::now(), span, state: Mutex::new(state), settled })
    }

    /// The share of one peer; `None` is this pod itself.
    #[must_use]
    pub fn target(self: &Arc<Self>, pod: Option<PodId>) -> Target {
        Target { in_flight: Arc::clone(self), pod, reported: false }
    }

    /// How old it is at least, by this host's monotonic clock and the delays after which it was delivered again; no host's wall clock counts. An event that
    /// was not given back is delivered again after the ack wait.
    #[must_use]
    pub fn age(&self, ack_wait: Duration) -> Duration {
        let before: Duration =
            (1..self.deliveries.min(MAX_COUNTED)).map(|delivery| retry_delay(delivery, self.event.seq).min(ack_wait)).sum();
        before + self.pulled_at.elapsed()
    }

    fn report(&self, pod: Option<&PodId>, outcome: TargetOutcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            TargetOutcome::Taken => state.taken = true,
            TargetOutcome::Nobody => {}
            TargetOutcome::Parked => state.parked = true,
            TargetOutcome::GivenUp => state.given_up.extend(pod.cloned()),
        }
        state.waiting = state.waiting.saturating_sub(1);
        if state.waiting > 0 {
            return;
        }
        let Some((ticket, permit)) = state.rest.take() else { return };
        // As long as one target may still get it, it is delivered again, and those that gave up get another chance too.
        let settlement = if state.parked {
            Settlement::Retry(retry_delay(self.deliveries, self.event.seq))
        } else if state.given_up.is_empty() {
            Settlement::Ack
        } else {
            Settlement::Terminate
        };
        let settled = Settled {
            event: Arc::clone(&self.event),
            ticket,
            settlement,
            taken: state.taken,
            given_up: std::mem::take(&mut state.given_up),
            _in_flight: permit,
        };
        drop(state);
        let _ = self.settled.send(settled);
    }
}

/// The delay before the next delivery: doubles with each, up to a cap. Whoever asks for the same event gets the same answer; events that were parked in one
/// instant do not come back in one.
pub(super) fn retry_delay(deliveries: u64, seq: u64) -> Duration {
    RETRIES.nth_of(deliveries, seq)
}

/// One target's share of an event. Dropped without a word (its task ended), it counts as parked: the event is delivered again.
#[derive(Debug)]
pub struct Target {
    in_flight: Arc<InFlight>,
    pod: Option<PodId>,
    reported: bool,
}

impl Target {
    /// The event in flight.
    #[must_use]
    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Bytes of the event's payload.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.in_flight.event.payload.bytes().len()
    }

    /// Says what the target did.
    pub fn report(mut self, outcome: TargetOutcome) {
        self.reported = true;
        self.in_flight.report(self.pod.as_ref(), outcome);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.reported {
            self.in_flight.report(self.pod.as_ref(), TargetOutcome::Parked);
        }
    }
}
