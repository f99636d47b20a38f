//! The queue to one peer: its backlog, its breaker, what is parked for it, and the gaps that its sessions are still to be told
//! of.
//!
//! Two things run side by side. One hands events over, a call at a time. The other looks after the peer: it asks for signs of
//! life while the breaker is open, and announces gaps. So neither a probe nor an announcement ever holds an event up, and a gap
//! waits for no event. While the breaker is open nothing else goes to the peer, so there a gap comes before all events that
//! follow it; else it may overtake or be overtaken by what is in a call at that moment.

mod backlog;
mod call;
mod pending_gaps;
mod upkeep;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use daisi_ws_domain::{
    breaker::{Breaker, Verdict},
    event::Event,
    gap::{Gap, GapCause},
    peer::PodRecord,
    route::RouteKey,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use self::{
    backlog::{Backlog, Counted, Health, Others},
    pending_gaps::PendingGaps,
};
use super::{
    in_flight::{Target, TargetOutcome, retry_delay},
    limits::ForwardLimits,
};
use crate::{
    application::wellness::Wellness,
    config::Config,
    metrics::Metrics,
    ports::{Handed, Peers, Routes},
    telemetry::spans,
};

/// Bytes that queue for all peers together.
const MAX_BYTES: usize = 256 << 20;

/// Deliveries after which an event is given up that finds no room among those of a peer that can't be reached: another pod may
/// reach it, and is given the chance.
const CHANCES: u64 = 2;
/// The same while this pod reaches few of its peers or none. Then it is this pod that is cut off, and what it takes by chance
/// others shall have.
const CHANCES_CUT_OFF: u64 = 4;

/// What the queues of a pod hold together: by it each knows what others leave it.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    /// Peers that this pod has had events for.
    peer_queues: AtomicUsize,
    /// Those of them that can't be reached.
    unreachable: AtomicUsize,
    /// Unsettled events of peers that are not well.
    unwell: AtomicUsize,
    /// Bytes that are kept for all peers.
    bytes: AtomicUsize,
}

/// The way to one peer.
pub(crate) struct PeerQueue {
    pub(crate) peer: PodRecord,
    shared: Arc<Shared>,
    queue: Mutex<Backlog>,
    pending_gaps: Mutex<PendingGaps>,
    /// Something waits.
    arrived: Notify,
    /// There may be reason to look after the peer.
    stirred: Notify,
    gone: CancellationToken,
}

impl PeerQueue {
    pub(crate) fn new(peer: PodRecord, shared: Arc<Shared>) -> Self {
        let (threshold, open_for) = {
            let config = shared.config.borrow();
            (config.app.grpc_circuitbreaker_fail_threshold, config.app.grpc_circuitbreaker_open_duration)
        };
        Self {
            peer,
            shared,
            queue: Mutex::new(Backlog::new(Breaker::new(threshold, open_for))),
            pending_gaps: Mutex::default(),
            arrived: Notify::new(),
            stirred: Notify::new(),
            gone: CancellationToken::new(),
        }
    }

    // ---- what others ask; none of it waits ----

    /// Queues an event, or has it parked or given up at once.
    pub(crate) fn offer(&self, target: Target) {
        let (now, limits) = (Instant::now(), self.limits());
        let mut queue = self.queue();
        let others = self.others(&queue);
        let offered = queue.offer(target, now, &limits, others);
        self.count(&mut queue, now);
        drop(queue);
        match offered {
            Ok(false) => {}
            Ok(true) => self.arrived.notify_one(),
            Err((target, TargetOutcome::Nobody)) => target.report(TargetOutcome::Nobody),
            Err((target, _)) => self.park([target]),
        }
    }

    /// Remembers that the sessions of the peer on these routes go without some events.
    pub(crate) fn add_gap(&self, routes: impl IntoIterator<Item = RouteKey>, gap: Gap) {
        let mut pending = self.pending_gaps();
        routes.into_iter().for_each(|route| pending.add(Some(route), gap));
        drop(pending);
        self.show();
        self.stirred.notify_one();
    }

    /// The peer may be reachable again: its next event is tried at once.
    pub(crate) fn hint(&self) {
        self.queue().breaker.hint(Instant::now().into_std());
        self.stirred.notify_one();
    }

    /// Ends the queue. What queues, or is in a call, comes to this.
    pub(crate) fn close(&self, outcome: TargetOutcome) {
        let waiting = {
            let mut queue = self.queue();
            let waiting = queue.close(outcome);
            self.count(&mut queue, Instant::now());
            waiting
        };
        self.gone.cancel();
        waiting.into_iter().for_each(|target| target.report(outcome));
    }

    /// Says to the sessions of the peer what they are owed, if need be by way of the store.
    pub(crate) async fn settle_debts(&self) {
        if self.pending_gaps().is_empty() || self.gone.is_cancelled() {
            return;
        }
        if self.announce().await.is_err() {
            self.pass_over().await;
        }
    }

    // ---- the task ----

    /// Works until the queue is closed.
    pub(crate) async fn run(&self) {
        self.shared.metrics.know_peer(self.peer.id.as_str());
        // What was in a call when a panic ended the task before has been parked by its drop.
        self.queue().call_ended();
        tokio::select! {
            biased;
            () = self.gone.cancelled() => {}
            () = self.hand_over() => {}
            () = self.look_after() => {}
        }
        if self.queue().gone() == Some(TargetOutcome::Nobody) {
            // A call that was under way when the peer was forgotten has shown it again.
            self.shared.metrics.forget_peer(self.peer.id.as_str());
        }
    }

    async fn hand_over(&self) {
        self.show();
        loop {
            loop {
                let batch = self.queue().next_batch(Instant::now());
                if batch.is_empty() {
                    break;
                }
                self.send(Batch { peer_queue: self, targets: batch }).await;
            }
            self.arrived.notified().await;
        }
    }

    async fn send(&self, mut batch: Batch<'_>) {
        // An event that has hardly any time left would take the others' along: a call is as short as the least of them allows.
        let budget = self.limits().budget;
        let is_late = |target: &Target| target.in_flight().pulled_at.elapsed() >= budget - budget / 10;
        let (late, targets) = std::mem::take(&mut batch.targets).into_iter().partition(is_late);
        batch.targets = targets;
        self.park::<Vec<_>>(late);
        if batch.targets.is_empty() {
            return;
        }
        let verdict = self.queue().breaker.admit(Instant::now().into_std());
        if let Verdict::Refuse { .. } = verdict {
            return batch.give_back();
        }
        let (events, spans) = self.traced(&batch.targets);
        let oldest = batch.targets.iter().map(|target| target.in_flight().pulled_at).min().unwrap_or_else(Instant::now);
        let may_pass = batch.targets.iter().any(|target| target.in_flight().may_pass());
        let answers = self.push_unless_stuck(&events, oldest + budget, may_pass).await;
        drop(spans);
        // What the peer did not speak of is tried again later.
        let mut answers = answers.into_iter();
        let (spoken, unspoken): (Vec<_>, Vec<_>) = std::mem::take(&mut batch.targets)
            .into_iter()
            .map(|target| (target, answers.next().flatten()))
            .partition(|(_, handed)| handed.is_some());
        for (target, handed) in spoken {
            target.report(handed.unwrap_or(Handed::Nobody).into());
        }
        batch.targets = unspoken.into_iter().map(|(target, _)| target).collect();
        batch.give_back();
    }

    /// The events of a batch; those that are traced with a span of their own for the way to the peer, which is what theirs hang
    /// on there.
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

    /// Gives events back to the stream, or up.
    fn park<T: IntoIterator<Item = Target>>(&self, targets: T) {
        let (now, limits, config) = (Instant::now(), self.limits(), self.config());
        let chances = if self.is_cut_off(&limits) { CHANCES_CUT_OFF } else { CHANCES };
        let gives_back = self.shared.wellness.stance().gives_back();
        let mut outcomes = Vec::new();
        let mut queue = self.queue();
        for target in targets {
            let in_flight = target.in_flight();
            if gives_back && in_flight.may_pass() {
                self.shared.metrics.events_passed_on_total.inc();
                outcomes.push((target, TargetOutcome::Passed));
                continue;
            }
            let is_last_try = in_flight.deliveries >= config.app.forward_max_deliveries
                || in_flight.age(limits.ack_wait()) >= config.app.forward_max_age;
            let others = self.others(&queue);
            // It counts until the stream delivers it again.
            let until = now + retry_delay(in_flight.deliveries, in_flight.event.seq);
            let has_chance = in_flight.deliveries < chances;
            let is_parked = !is_last_try && (queue.park(until, now, &limits, others) || has_chance);
            outcomes.push((target, if is_parked { TargetOutcome::Parked } else { TargetOutcome::GivenUp }));
        }
        self.count(&mut queue, now);
        drop(queue);
        if outcomes.is_empty() {
            return;
        }
        self.show();
        self.stirred.notify_one();
        outcomes.into_iter().for_each(|(target, outcome)| target.report(outcome));
    }

    // ---- state ----

    fn queue(&self) -> MutexGuard<'_, Backlog> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending_gaps(&self) -> MutexGuard<'_, PendingGaps> {
        self.pending_gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> ForwardLimits {
        *self.shared.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.shared.config.borrow())
    }

    /// Is it this pod that can't be reached, rather than its peers? So it seems if it reaches less than half of those that it has
    /// events for; among two pods nobody knows.
    fn is_cut_off(&self, limits: &ForwardLimits) -> bool {
        let (peer_queues, unreachable) = (&self.shared.sums.peer_queues, &self.shared.sums.unreachable);
        limits.peers > 1 && 2 * unreachable.load(Ordering::Relaxed) > peer_queues.load(Ordering::Relaxed)
    }

    /// What other queues leave this one.
    fn others(&self, queue: &Backlog) -> Others {
        let sums = &self.shared.sums;
        Others {
            unwell: sums.unwell.load(Ordering::Relaxed).saturating_sub(queue.counted.unwell),
            bytes_left: MAX_BYTES.saturating_sub(sums.bytes.load(Ordering::Relaxed)),
        }
    }

    /// Brings what this queue adds to the sums up to date. Under the queue's lock, so that no two do it at once.
    fn count(&self, queue: &mut Backlog, now: Instant) {
        let health = queue.health(now);
        let unwell = if health == Health::Well { 0 } else { queue.held() };
        let peer_queues = usize::from(queue.gone().is_none());
        let unreachable = if health == Health::Unwell { peer_queues } else { 0 };
        let (before, after) = (queue.counted, Counted { unwell, bytes: queue.bytes(), peer_queues, unreachable });
        queue.counted = after;
        let adjust = |sum: &AtomicUsize, before: usize, after: usize| {
            if after > before {
                sum.fetch_add(after - before, Ordering::Relaxed);
            } else if after < before {
                sum.fetch_sub(before - after, Ordering::Relaxed);
            }
        };
        let sums = &self.shared.sums;
        adjust(&sums.unwell, before.unwell, after.unwell);
        adjust(&sums.bytes, before.bytes, after.bytes);
        adjust(&sums.peer_queues, before.peer_queues, after.peer_queues);
        adjust(&sums.unreachable, before.unreachable, after.unreachable);
    }

    fn show(&self) {
        let (parked, is_closed) = {
            let queue = self.queue();
            (queue.parked(), queue.breaker.is_closed())
        };
        let (metrics, pod) = (&self.shared.metrics, [self.peer.id.as_str()]);
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.grpc_circuitbreaker_open.with_label_values(&pod).set(i64::from(!is_closed));
        metrics.events_parked.with_label_values(&pod).set(gauge(parked));
        metrics.gaps_owed.with_label_values(&pod).set(gauge(self.pending_gaps().len()));
    }
}

/// Events on their way in a call. Dropped with some of them (the queue was closed, or its task ended), those come to what the
/// queue's events come to.
struct Batch<'a> {
    peer_queue: &'a PeerQueue,
    targets: Vec<Target>,
}

impl Batch<'_> {
    /// Parks what is left; it counts as parked from now on, and no longer as on its way.
    fn give_back(mut self) {
        let targets = std::mem::take(&mut self.targets);
        self.peer_queue.queue().call_ended();
        self.peer_queue.park(targets);
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let gone = {
            let mut queue = self.peer_queue.queue();
            queue.call_ended();
            self.peer_queue.count(&mut queue, Instant::now());
            queue.gone()
        };
        if let Some(outcome) = gone {
            self.targets.drain(..).for_each(|target| target.report(outcome));
        }
    }
}

/// The gap that the sessions of a peer get for an event given up.
#[must_use]
pub(crate) fn gap_of(event: &Event) -> Gap {
    Gap::of(if event.is_sequenced() { event.seq } else { 0 }, GapCause::GivenUp)
}

#[cfg(test)]
mod tests;

/// What queues share.
pub(crate) struct Shared {
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) limits: Mutex<ForwardLimits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) wellness: Arc<Wellness>,
    pub(crate) sums: Sums,
}
