//! The lane to one peer: its queue, its breaker, what is parked for it, and what it is owed.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tracing::Span;

use super::{
    forward::{ForwardLimits, Shared},
    outcome::{Target, TargetOutcome, retry_delay},
    ports::PeerError,
};
use crate::{
    backoff::Backoff,
    clock,
    config::Config,
    domain::{
        breaker::{Breaker, Verdict},
        event::Event,
        gap::{Gap, GapCause},
        peer::PodRecord,
        route::RouteKey,
    },
    telemetry::spans,
};

/// Bounds of one call: enough to share its cost, little enough for a frame of a megabyte or two.
const MAX_EVENTS: usize = 256;
const MAX_BYTES: usize = 1 << 20;
/// Longest pause before the one retry of a failed call (seed section 3.2).
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// While the breaker is open, or a gap is owed, the peer is asked for a sign of life this often.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// Routes for which a gap is kept apart; past that one gap for all sessions of the peer is kept.
const MAX_OWED_ROUTES: usize = 1024;

/// What a lane is told.
#[derive(Debug)]
pub(super) enum LaneOrder {
    Forward(Target),
    Owe(Vec<RouteKey>, Gap),
    Hint,
    PeerIsDead,
}

/// Gaps to be announced once the peer can be reached.
#[derive(Debug, Default)]
struct Owed {
    by_route: HashMap<RouteKey, Gap>,
    to_all: Option<Gap>,
}

impl Owed {
    fn is_empty(&self) -> bool {
        self.by_route.is_empty() && self.to_all.is_none()
    }

    fn add(&mut self, route: RouteKey, gap: Gap) {
        let room = self.by_route.len() < MAX_OWED_ROUTES;
        match self.by_route.get_mut(&route) {
            Some(known) => *known = known.merge(gap),
            None if room => {
                self.by_route.insert(route, gap);
            }
            None => self.to_all = Some(self.to_all.map_or(gap, |known| known.merge(gap))),
        }
    }
}

/// The task's state.
pub(super) struct Lane {
    peer: PodRecord,
    orders: mpsc::Receiver<LaneOrder>,
    shared: Arc<Shared>,
    breaker: Breaker,
    /// Until when each parked event counts.
    parked: BinaryHeap<Reverse<Instant>>,
    owed: Owed,
    /// When the peer is looked after next, if there is reason to.
    look_at: Instant,
    dead: bool,
}

impl Lane {
    pub(super) fn new(peer: PodRecord, orders: mpsc::Receiver<LaneOrder>, shared: Arc<Shared>) -> Self {
        let (threshold, open_for) = {
            let config = shared.config.borrow();
            (config.app.grpc_circuitbreaker_fail_threshold, config.app.grpc_circuitbreaker_open_duration)
        };
        let breaker = Breaker::new(threshold, open_for);
        Self {
            peer,
            orders,
            shared,
            breaker,
            parked: BinaryHeap::new(),
            owed: Owed::default(),
            look_at: Instant::now() + PROBE_PERIOD,
            dead: false,
        }
    }

    /// Works until the peer is dead or the forwarder is gone.
    pub(super) async fn run(mut self) {
        self.shared.metrics.know_peer(self.peer.id.as_str());
        self.show_breaker();
        let mut batch = Vec::new();
        loop {
            let restless = !self.owed.is_empty() || !self.breaker.is_closed() || !self.parked.is_empty();
            tokio::select! {
                biased;
                // Before the orders: steady traffic must not keep a healed peer waiting for its breaker.
                () = tokio::time::sleep_until(self.look_at), if restless => {
                    self.look_after_peer().await;
                    self.look_at = Instant::now() + PROBE_PERIOD;
                    continue;
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, &mut batch),
                    None => return,
                },
            }
            self.fill(&mut batch);
            if self.dead {
                return self.bury(batch);
            }
            if !batch.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
            }
        }
    }

    fn obey(&mut self, order: LaneOrder, batch: &mut Vec<Target>) {
        match order {
            LaneOrder::Forward(target) => batch.push(target),
            LaneOrder::Owe(routes, gap) => routes.into_iter().for_each(|route| self.owed.add(route, gap)),
            LaneOrder::Hint => self.breaker.hint(Instant::now().into_std()),
            LaneOrder::PeerIsDead => self.dead = true,
        }
    }

    /// Adds what has queued, up to the bounds of a call.
    fn fill(&mut self, batch: &mut Vec<Target>) {
        let size = |target: &Target| target.in_flight().event.payload.bytes().len();
        let mut bytes: usize = batch.iter().map(size).sum();
        while batch.len() < MAX_EVENTS
            && bytes < MAX_BYTES
            && let Ok(order) = self.orders.try_recv()
        {
            let before = batch.len();
            self.obey(order, batch);
            bytes += batch.get(before).map_or(0, size);
        }
    }

    /// Everything queued for a dead peer has nobody to go to.
    fn bury(mut self, batch: Vec<Target>) {
        self.orders.close();
        // A call that was under way when the peer was forgotten has shown it again.
        self.shared.metrics.forget_peer(self.peer.id.as_str());
        batch.into_iter().for_each(|target| target.report(TargetOutcome::Nobody));
        while let Ok(order) = self.orders.try_recv() {
            if let LaneOrder::Forward(target) = order {
                target.report(TargetOutcome::Nobody);
            }
        }
    }

    fn limits(&self) -> ForwardLimits {
        *self.shared.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&mut self, batch: Vec<Target>) {
        let budget = self.limits().budget;
        let (batch, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|target| target.in_flight().pulled_at.elapsed() < budget);
        self.park(late);
        if batch.is_empty() {
            return;
        }
        if let Verdict::Refuse { .. } = self.breaker.admit(Instant::now().into_std()) {
            return self.park(batch);
        }
        let (events, spans) = self.traced(&batch);
        let oldest = batch.iter().map(|target| target.in_flight().pulled_at).min().unwrap_or_else(Instant::now);
        let answer = self.push(&events, oldest + budget).await;
        drop(spans);
        match answer {
            Ok(taken) => {
                let mut taken = taken.into_iter();
                for target in batch {
                    // A peer that answers for fewer events than it was given has not spoken for the rest.
                    target.report(match taken.next() {
                        Some(true) => TargetOutcome::Taken,
                        Some(false) => TargetOutcome::Nobody,
                        None => TargetOutcome::Parked,
                    });
                }
                self.pay().await;
            }
            Err(error) => {
                tracing::debug!(peer.id = %self.peer.id, %error, events = batch.len(), "events for the peer are parked");
                self.park(batch);
            }
        }
    }

    /// The events of a batch; those that are traced with a span of their own for the way to the peer, which is what theirs hang on there.
    fn traced(&self, batch: &[Target]) -> (Vec<Arc<Event>>, Vec<Span>) {
        let mut open = Vec::new();
        let prepare = |target: &Target| {
            let in_flight = target.in_flight();
            let Some(dispatch) = &in_flight.span else { return Arc::clone(&in_flight.event) };
            let span = spans::forward(dispatch, self.peer.id.as_str(), batch.len());
            let traceparent = spans::traceparent_of(&span);
            open.push(span);
            Arc::new(Event { traceparent, ..Event::clone(&in_flight.event) })
        };
        let events = batch.iter().map(prepare).collect();
        (events, open)
    }

    /// One call, and one more where the first one failed in a way that a second can mend and there is time.
    async fn push(&mut self, events: &[Arc<Event>], deadline: Instant) -> Result<Vec<bool>, PeerError> {
        let pod = self.peer.id.as_str().to_owned();
        let first = self.call(events, deadline).await;
        let Err(error) = &first else { return first };
        let retry = !matches!(error, PeerError::Refused(_)) && Instant::now() + RETRY_PAUSE < deadline;
        if !retry || !self.breaker.is_closed() {
            return first;
        }
        let metrics = Arc::clone(&self.shared.metrics);
        metrics.grpc_forward_retry_attempts_total.with_label_values(&[&pod]).inc();
        tokio::time::sleep(Backoff::new(RETRY_PAUSE, RETRY_PAUSE).pause()).await;
        let second = self.call(events, deadline).await;
        let counter =
            if second.is_ok() { &metrics.grpc_forward_retry_success_total } else { &metrics.grpc_forward_retry_failure_total };
        counter.with_label_values(&[&pod]).inc();
        second
    }

    async fn call(&mut self, events: &[Arc<Event>], deadline: Instant) -> Result<Vec<bool>, PeerError> {
        let started = Instant::now();
        let allowed = self.config().app.grpc_client_forward_timeout.min(deadline.saturating_duration_since(started));
        let answer =
            tokio::time::timeout(allowed, self.shared.peers.push(&self.peer, events)).await.unwrap_or(Err(PeerError::TimedOut));
        let metrics = &self.shared.metrics;
        match &answer {
            Ok(_) => {
                metrics.grpc_forward_seconds.observe(started.elapsed().as_secs_f64());
                metrics.grpc_messages_sent_total.with_label_values(&[self.peer.id.as_str()]).inc_by(events.len() as u64);
                if self.breaker.succeeded() {
                    tracing::info!(peer.id = %self.peer.id, "the peer is reachable again");
                }
            }
            Err(error) => {
                if self.breaker.failed(Instant::now().into_std()) {
                    metrics.grpc_circuitbreaker_tripped_total.with_label_values(&[self.peer.id.as_str()]).inc();
                    tracing::warn!(peer.id = %self.peer.id, %error, "the peer's circuit breaker opened; its events are parked");
                }
            }
        }
        self.show_breaker();
        answer
    }

    /// Gives events back to the stream, or up.
    fn park(&mut self, batch: Vec<Target>) {
        let now = Instant::now();
        let (max_parked, config) = (self.limits().parked, self.config());
        for target in batch {
            self.forget_redelivered(now);
            let in_flight = target.in_flight();
            let age = clock::now().saturating_sub(in_flight.event.stored_at);
            let last_try = in_flight.deliveries >= config.app.forward_max_deliveries || age >= config.app.forward_max_age;
            if last_try || self.parked.len() >= max_parked {
                target.report(TargetOutcome::GivenUp);
            } else {
                // It counts until the stream delivers it again.
                self.parked.push(Reverse(now + retry_delay(in_flight.deliveries, in_flight.event.seq)));
                target.report(TargetOutcome::Parked);
            }
        }
        self.show_parked();
    }

    fn forget_redelivered(&mut self, now: Instant) {
        while self.parked.peek().is_some_and(|Reverse(until)| *until <= now) {
            self.parked.pop();
        }
    }

    fn show_breaker(&self) {
        let open = i64::from(!self.breaker.is_closed());
        self.shared.metrics.grpc_circuitbreaker_open.with_label_values(&[self.peer.id.as_str()]).set(open);
    }

    fn show_parked(&self) {
        let parked = i64::try_from(self.parked.len()).unwrap_or(i64::MAX);
        self.shared.metrics.events_parked.with_label_values(&[self.peer.id.as_str()]).set(parked);
    }

    /// Asks a peer that was unreachable for a sign of life: events are not held up by the breaker longer than need be, and what it is owed is paid.
    async fn look_after_peer(&mut self) {
        self.forget_redelivered(Instant::now());
        self.show_parked();
        if self.breaker.is_closed() && self.owed.is_empty() {
            return;
        }
        if self.shared.peers.probe(&self.peer).await.is_ok() {
            self.breaker.hint(Instant::now().into_std());
            self.pay().await;
        }
    }

    /// Announces what is owed, as far as the peer takes it.
    async fn pay(&mut self) {
        let allowed = self.config().app.grpc_client_forward_timeout;
        let debts = std::mem::take(&mut self.owed);
        let all = debts.to_all.map(|gap| (None, gap));
        let debts = debts.by_route.into_iter().map(|(route, gap)| (Some(route), gap)).chain(all);
        for (route, gap) in debts {
            let telling = self.shared.peers.announce_gap(&self.peer, route.as_ref(), gap);
            let told = tokio::time::timeout(allowed, telling).await.is_ok_and(|told| told.is_ok());
            match (told, route) {
                (true, _) => {}
                (false, Some(route)) => self.owed.add(route, gap),
                (false, None) => self.owed.to_all = Some(self.owed.to_all.map_or(gap, |known| known.merge(gap))),
            }
        }
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.shared.config.borrow())
    }
}

/// The gap that the sessions of a peer get for an event given up.
#[must_use]
pub(super) fn gap_of(event: &Event) -> Gap {
    if event.is_sequenced() { Gap::of(event.seq, GapCause::GivenUp) } else { Gap::unknown(GapCause::GivenUp) }
}

#[cfg(test)]
mod tests;
