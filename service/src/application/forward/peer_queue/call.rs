//! Calls to a peer that hand events over.

use std::{ops::Range, sync::Arc, time::Duration};

use daisi_ws_domain::event::Event;
use tokio::time::{Instant, sleep};

use super::{PeerQueue, backlog};
use crate::{
    application::wellness::stance::SLOW,
    ports::{Handed, PeerError},
    runtime::backoff::Backoff,
    telemetry::Chain,
};

/// Longest pause before the one retry of a failed call.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Calls by which a batch is divided to find the event that a peer fails at: twice the halvings of the largest.
const MAX_DIVISIONS: usize = 16;

impl PeerQueue {
    /// Pushes; while the peer does not answer, nothing waits behind that for long. Where it is this pod that can't reach its
    /// peers, and some of the events may be left to others, the call is not waited for.
    pub(super) async fn push_unless_stuck(
        &self,
        events: &[Arc<Event>],
        deadline: Instant,
        may_pass: bool,
    ) -> Vec<Option<Handed>> {
        let pushing = self.push(events, deadline);
        tokio::pin!(pushing);
        let (mut patience, mut is_told) = (SLOW, false);
        loop {
            tokio::select! {
                biased;
                answers = &mut pushing => return answers,
                () = self.shared.wellness.gives_back(), if may_pass && !is_told => is_told = true,
                () = sleep(patience) => {
                    if patience == SLOW {
                        patience = backlog::TICK;
                        self.shared.wellness.peer_is_silent(&self.peer.id);
                    }
                    let waiting = {
                        let (now, mut queue) = (Instant::now(), self.queue());
                        queue.tick(now);
                        if queue.is_stuck(now) { queue.take_waiting() } else { Vec::new() }
                    };
                    self.park(waiting);
                }
            }
            if may_pass && self.shared.wellness.gives_up_on(&self.peer.id) {
                let waiting = {
                    let (now, mut queue) = (Instant::now(), self.queue());
                    queue.not_answered(now);
                    if !queue.breaker.is_closed() {
                        // It was the one probe, and nothing else goes to the peer before that has an end.
                        queue.breaker.failed(now.into_std());
                    }
                    queue.take_waiting()
                };
                self.park(waiting);
                return Vec::new();
            }
        }
    }

    /// What the peer said of each event, if it did. One call, and one more where the first failed in a way that a second can mend
    /// and there is time; a batch that the peer fails at is divided, so that one event costs no other its delivery.
    async fn push(&self, events: &[Arc<Event>], deadline: Instant) -> Vec<Option<Handed>> {
        let mut answer = self.call(events, deadline).await;
        let can_mend = answer.as_ref().is_err_and(PeerError::is_silent);
        let gives_up = self.shared.wellness.gives_up_on(&self.peer.id);
        if can_mend && !gives_up && self.queue().breaker.is_closed() && Instant::now() + RETRY_PAUSE < deadline {
            answer = self.retry(events, deadline).await;
        }
        match answer {
            Ok(handed) => handed.into_iter().map(Some).collect(),
            Err(PeerError::Failed(_)) if events.len() > 1 => self.divide(events, deadline).await,
            Err(error) => {
                tracing::debug!(
                    peer.id = %self.peer.id, error = %Chain(&error), events = events.len(),
                    "events for the peer are parked"
                );
                Vec::new()
            }
        }
    }

    async fn retry(&self, events: &[Arc<Event>], deadline: Instant) -> Result<Vec<Handed>, PeerError> {
        let (metrics, pod) = (&self.shared.metrics, self.peer.id.as_str());
        metrics.grpc_forward_retry_attempts_total.with_label_values(&[pod]).inc();
        sleep(Backoff::new(RETRY_PAUSE, RETRY_PAUSE).pause()).await;
        let second = self.call(events, deadline).await;
        let counter =
            if second.is_ok() { &metrics.grpc_forward_retry_success_total } else { &metrics.grpc_forward_retry_failure_total };
        counter.with_label_values(&[pod]).inc();
        second
    }

    /// Hands a batch over in halves, and halves of those that fail, within a number of calls.
    async fn divide(&self, events: &[Arc<Event>], deadline: Instant) -> Vec<Option<Handed>> {
        let mut answers = vec![None; events.len()];
        let halves = |Range { start, end }: Range<usize>| {
            let middle = usize::midpoint(start, end);
            // Taken from the end: the earlier half goes first.
            [middle..end, start..middle]
        };
        let mut parts = Vec::from(halves(0..events.len()));
        for _ in 0..MAX_DIVISIONS {
            let Some(part) = parts.pop() else { break };
            match self.call(&events[part.clone()], deadline).await {
                Ok(handed) => answers[part].iter_mut().zip(handed).for_each(|(answer, handed)| *answer = Some(handed)),
                Err(PeerError::Failed(_)) if part.len() > 1 => parts.extend(halves(part)),
                Err(error @ PeerError::Failed(_)) => {
                    let event = &events[part.start];
                    tracing::debug!(
                        peer.id = %self.peer.id, event.seq = event.seq, error = %Chain(&error),
                        "the peer fails at an event; it is parked"
                    );
                }
                Err(error) => {
                    tracing::debug!(peer.id = %self.peer.id, error = %Chain(&error), "the rest of a divided batch is parked");
                    break;
                }
            }
        }
        answers
    }

    async fn call(&self, events: &[Arc<Event>], deadline: Instant) -> Result<Vec<Handed>, PeerError> {
        let started = Instant::now();
        let allowed = self.config().app.grpc_client_forward_timeout.min(deadline.saturating_duration_since(started));
        self.queue().asked(started);
        let answer =
            tokio::time::timeout(allowed, self.shared.peers.push(&self.peer, events)).await.unwrap_or(Err(PeerError::TimedOut));
        match &answer {
            Err(error) if error.is_silent() => self.shared.wellness.peer_is_silent(&self.peer.id),
            Ok(_) | Err(_) => self.shared.wellness.peer_answered(&self.peer.id, started.elapsed()),
        }
        let (now, metrics, pod) = (Instant::now(), &self.shared.metrics, self.peer.id.as_str());
        let mut queue = self.queue();
        match &answer {
            Ok(_) => {
                queue.answered();
                let is_back = queue.breaker.succeeded();
                drop(queue);
                metrics.grpc_forward_seconds.observe(started.elapsed().as_secs_f64());
                metrics.grpc_messages_sent_total.with_label_values(&[pod]).inc_by(events.len() as u64);
                if is_back {
                    tracing::info!(peer.id = %self.peer.id, "the peer is reachable again");
                }
            }
            Err(error) => {
                if matches!(error, PeerError::Failed(_)) {
                    queue.answered();
                } else {
                    queue.not_answered(now);
                }
                // A peer that fails at some events is not closed to all others; one that fails at each alone is.
                let has_opened =
                    (!matches!(error, PeerError::Failed(_)) || events.len() == 1) && queue.breaker.failed(now.into_std());
                drop(queue);
                if has_opened {
                    metrics.grpc_circuitbreaker_tripped_total.with_label_values(&[pod]).inc();
                    tracing::warn!(
                        peer.id = %self.peer.id, error = %Chain(error),
                        "the peer's circuit breaker opened; its events are parked"
                    );
                }
            }
        }
        self.show();
        if !self.pending_gaps().is_empty() || answer.is_err() {
            self.stirred.notify_one();
        }
        answer
    }
}
