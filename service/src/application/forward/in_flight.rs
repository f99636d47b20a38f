//! An event in flight: waits for each of its targets, then is settled once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use daisi_ws_domain::{event::Event, ids::PodId};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use crate::{
    application::hub::memory::Charge,
    ports::{AckToken, Delivery, Handed, Settlement},
    runtime::backoff::Backoff,
};

/// The first delays before an event that a live target could not take is delivered again: so short that another pod, which may
/// well reach the target, has it before anybody notices.
const SOON: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));
/// So many of them.
pub(crate) const SOON_TIMES: u64 = 3;
/// Those that follow.
const LATER: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
/// The delays before an event is delivered again that a session between two pods wants: about as long as a client takes to come
/// back.
const BETWEEN_PODS: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(1));

/// The first deliveries of an event, after which it may be left to another pod without a delay. The stream may well choose the
/// same pod again: of three, the one that passes on gets one event in 27 three times in a row, and one in 729 six times.
pub(super) const PASSES: u64 = 5;

/// Deliveries from which an age is reckoned: past so many, an event is hours old.
const MAX_COUNTED: u64 = 1000;

/// What one target did with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetOutcome {
    /// A socket there took it, now or before.
    Taken,
    /// Nobody there wants it, or nobody is there.
    Nobody,
    /// A session there was told to go to another pod, and may not be there yet.
    Between,
    /// It is better reached by another pod, and at once.
    Passed,
    /// It could not be reached; later perhaps.
    Parked,
    /// It could not be reached, and that was the last try.
    GivenUp,
}

impl From<Handed> for TargetOutcome {
    fn from(handed: Handed) -> Self {
        match handed {
            Handed::Taken => Self::Taken,
            Handed::Nobody => Self::Nobody,
            Handed::Between => Self::Between,
        }
    }
}

/// What an event has while it is in flight: one of the places, and what it counts for in memory.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
    _charge: Option<Charge>,
}

impl Permit {
    /// For an event that is counted.
    #[must_use]
    pub fn new(place: OwnedSemaphorePermit, charge: Charge) -> Self {
        Self { _place: place, _charge: Some(charge) }
    }
}

impl From<OwnedSemaphorePermit> for Permit {
    fn from(place: OwnedSemaphorePermit) -> Self {
        Self { _place: place, _charge: None }
    }
}

/// An event as it came from the stream, with all that is needed until it is settled.
#[derive(Debug)]
pub struct Pulled {
    /// The event.
    pub event: Arc<Event>,
    /// How it came.
    pub delivery: Delivery,
    /// By which it is settled.
    pub ack_token: AckToken,
    /// Its place among those that are in flight.
    pub permit: Permit,
    /// Open until it is settled, if it is traced.
    pub span: Option<tracing::Span>,
}

/// What became of an event, when all targets have spoken.
#[derive(Debug)]
pub struct Settled {
    /// The event.
    pub event: Arc<Event>,
    /// By which it is settled.
    pub ack_token: AckToken,
    /// What to tell the stream.
    pub settlement: Settlement,
    /// From when on the stream waited for it.
    pub received_at: Instant,
    /// Did any target take it?
    pub taken: bool,
    /// The peers whose sessions go without, if it is terminated.
    pub given_up: Vec<PodId>,
    _in_flight: Permit,
}

impl Settled {
    /// Would it reach the stream when the event has been delivered again, perhaps to another pod? Then that pod decides: a
    /// termination would end what it is about to deliver, and a retry would have a third at work. An ack is never late: every
    /// live target has the event.
    #[must_use]
    pub(crate) fn is_late(&self, ack_wait: Duration) -> bool {
        self.settlement != Settlement::Ack && self.received_at.elapsed() >= ack_wait * 9 / 10
    }
}

#[derive(Debug)]
struct State {
    waiting: usize,
    taken: bool,
    between: bool,
    passed: bool,
    parked: bool,
    given_up: Vec<PodId>,
    /// Taken out when the last target has spoken.
    rest: Option<(AckToken, Permit)>,
}

/// An event taken from the stream and not settled yet. It holds a permit until then, so that so many and no more are in flight.
#[derive(Debug)]
pub struct InFlight {
    /// The event.
    pub event: Arc<Event>,
    /// How often it has been delivered.
    pub deliveries: u64,
    /// From when on it has the consumer's ack wait, which is [when it came](Delivery::received_at), and not when somebody began
    /// to work on it.
    pub pulled_at: Instant,
    /// How it came, and how old it was then by the stream's own clock.
    pub delivery: Delivery,
    /// Open until it is settled, if it is traced.
    pub span: Option<tracing::Span>,
    state: Mutex<State>,
    settled: mpsc::UnboundedSender<Settled>,
}

impl InFlight {
    /// An event with `targets` targets, each of which must get a [`Target`]. The queue of settled events is bounded by the
    /// permits.
    #[must_use]
    pub fn new(pulled: Pulled, targets: usize, settled: mpsc::UnboundedSender<Settled>) -> Arc<Self> {
        let Pulled { event, delivery, ack_token, permit, span } = pulled;
        let state = State {
            waiting: targets,
            taken: false,
            between: false,
            passed: false,
            parked: false,
            given_up: Vec::new(),
            rest: Some((ack_token, permit)),
        };
        let (deliveries, pulled_at) = (delivery.count, delivery.received_at);
        Arc::new(Self { event, deliveries, pulled_at, delivery, span, state: Mutex::new(state), settled })
    }

    /// The share of one peer; `None` is this pod itself.
    #[must_use]
    pub fn target(self: &Arc<Self>, pod: Option<PodId>) -> Target {
        Target { in_flight: Arc::clone(self), pod, reported: false }
    }

    /// How old it is at least: by the stream's own clock, and, as that may not be known, by the delays after which it was
    /// delivered again; this host's wall clock does not count. An event that was not given back is delivered again after the ack
    /// wait.
    #[must_use]
    pub fn age(&self, ack_wait: Duration) -> Duration {
        let before: Duration =
            (1..self.deliveries.min(MAX_COUNTED)).map(|delivery| retry_delay(delivery, self.event.seq).min(ack_wait)).sum();
        self.delivery.age().max(before + self.pulled_at.elapsed())
    }

    /// May it be left to another pod, without a delay? Not without end, or where all pods are as badly off it would go in
    /// circles.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        may_pass(&self.delivery)
    }

    fn report(&self, pod: Option<&PodId>, outcome: TargetOutcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            TargetOutcome::Taken => state.taken = true,
            TargetOutcome::Nobody => {}
            // There is no later if the consumer has a limit.
            TargetOutcome::Between => state.between |= !self.delivery.is_last,
            TargetOutcome::Passed => state.passed = true,
            // Whom nobody can name the stream tells: it says when it delivers an event no more.
            TargetOutcome::Parked if self.delivery.is_last && pod.is_some() => state.given_up.extend(pod.cloned()),
            TargetOutcome::Parked => state.parked = true,
            TargetOutcome::GivenUp => state.given_up.extend(pod.cloned()),
        }
        state.waiting = state.waiting.saturating_sub(1);
        if state.waiting > 0 {
            return;
        }
        let Some((ack_token, permit)) = state.rest.take() else { return };
        // As long as one target may still get it, it is delivered again, and those that gave up get another chance too.
        let settlement = if state.passed {
            Settlement::Retry(Duration::ZERO)
        } else if state.parked {
            Settlement::Retry(retry_delay(self.deliveries, self.event.seq))
        } else if state.between {
            Settlement::Retry(BETWEEN_PODS.nth_of(self.deliveries, self.event.seq))
        } else if state.given_up.is_empty() {
            Settlement::Ack
        } else {
            Settlement::Terminate
        };
        let settled = Settled {
            event: Arc::clone(&self.event),
            ack_token,
            settlement,
            received_at: self.delivery.received_at,
            taken: state.taken,
            given_up: std::mem::take(&mut state.given_up),
            _in_flight: permit,
        };
        drop(state);
        let _ = self.settled.send(settled);
    }
}

/// See [`InFlight::may_pass`].
pub(crate) fn may_pass(delivery: &Delivery) -> bool {
    delivery.count <= PASSES && !delivery.is_last
}

/// The delay before the next delivery: short at first, then doubling with each, up to a cap. Anyone who asks for the same event
/// gets the same answer; events that were parked in one instant do not come back in one.
pub(crate) fn retry_delay(deliveries: u64, seq: u64) -> Duration {
    match deliveries.checked_sub(SOON_TIMES) {
        None | Some(0) => SOON.nth_of(deliveries, seq),
        Some(later) => LATER.nth_of(later, seq),
    }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use daisi_ws_domain::event::{Address, Payload, StreamId};
    use tokio::sync::Semaphore;

    use super::*;

    const ACK_WAIT: Duration = Duration::from_secs(10);

    async fn settled(outcome: TargetOutcome, delivery: Delivery) -> Settled {
        let event = Event {
            address: Address::parse("wa", "wa.a.b.chats").unwrap(),
            payload: Payload::parse(&Bytes::from_static(b"{}")).unwrap(),
            stream: StreamId(1),
            seq: 1,
            stored_at: Duration::ZERO,
            request_id: None,
            traceparent: None,
        };
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let (event, ack_token) = (Arc::new(event), AckToken::default());
        let pulled = Pulled { event, delivery, ack_token, permit: permit.into(), span: None };
        let in_flight = InFlight::new(pulled, 1, sender);
        in_flight.target(PodId::parse("b").ok()).report(outcome);
        receiver.recv().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_will_not_be_delivered_again_is_given_up_and_not_parked() {
        let parked = settled(TargetOutcome::Parked, Delivery::now(2)).await;
        assert!(matches!(parked.settlement, Settlement::Retry(_)));
        let last = settled(TargetOutcome::Parked, Delivery { is_last: true, ..Delivery::now(2) }).await;
        assert_eq!((last.settlement, last.given_up), (Settlement::Terminate, vec![PodId::parse("b").unwrap()]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_left_to_another_pod_at_once_and_not_without_end() {
        assert_eq!(settled(TargetOutcome::Passed, Delivery::now(1)).await.settlement, Settlement::Retry(Duration::ZERO));
        assert!(may_pass(&Delivery::now(1)) && may_pass(&Delivery::now(PASSES)) && !may_pass(&Delivery::now(PASSES + 1)));
        assert!(!may_pass(&Delivery { is_last: true, ..Delivery::now(1) }), "it would not come again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_reach_the_stream_after_the_ack_wait_is_an_ack_or_nothing() {
        let mut delivery = Delivery::now(1);
        tokio::time::advance(ACK_WAIT / 2).await;
        assert!(!settled(TargetOutcome::GivenUp, delivery).await.is_late(ACK_WAIT));
        tokio::time::advance(ACK_WAIT / 2).await;
        assert!(settled(TargetOutcome::GivenUp, delivery).await.is_late(ACK_WAIT));
        assert!(settled(TargetOutcome::Parked, delivery).await.is_late(ACK_WAIT));
        assert!(!settled(TargetOutcome::Taken, delivery).await.is_late(ACK_WAIT));
        delivery.extended(Instant::now());
        let extended = settled(TargetOutcome::GivenUp, delivery).await;
        assert!(!extended.is_late(ACK_WAIT) && delivery.age() == ACK_WAIT);
    }
}
