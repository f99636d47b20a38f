//! From the stream to everybody who should see it: takes events, finds their targets, and settles each by its outcome.
//!
//! The loop that takes events brings them to this pod's sockets at once and waits for nobody: not for a socket, not for a peer, and not for the store, which
//! another loop (`resolve.rs`) asks for the other pods.

mod health;
mod losses;
mod resolve;
mod unknown_members;

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::event::{Address, Event, Payload, PayloadError, SubjectError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use self::losses::Losses;
use super::{
    fleet::directory::Directory,
    forward::{
        forwarder::Forwarder,
        in_flight::{Permit, Settled},
        limits::ForwardLimits,
        peer_queue::gap_of,
    },
    hub::{
        deliver::{LocalDelivery, Path},
        memory::{Kind, Memory},
        prepared_message::EVENT_OVERHEAD,
        registry::Delivered,
    },
    wellness::Wellness,
};
use crate::{
    config::Config,
    metrics::{Metrics, SettledAs},
    ports::{AckToken, Delivery, EventSource, RawEvent, Routes, Settlement, SourceError},
    readiness::Readiness,
    runtime::{backoff::Backoff, fine_timer::FineTimer, linger::Linger},
    telemetry::{Chain, spans},
};

/// Settlements in one call.
const MAX_SETTLEMENTS: usize = 512;
/// From one pull to the next while many events come: long enough that some thirty share what a pull costs where there are 20,000 a second.
const BETWEEN_PULLS: Duration = Duration::from_micros(1500);
/// So many bytes of events are followed by a millisecond in which sockets write: mailboxes are filled no faster than a fast client could read.
const BYTES_A_MILLISECOND: usize = 1024 * 1024;
/// From one pull to the next when events come back that were given back: it is for others to take them.
const FOR_OTHERS: Duration = Duration::from_millis(5);
/// The pauses after pulls that failed at once.
const PULL_PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// How often an outage of the stream is logged again.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Why an event can never be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Poison {
    #[error(transparent)]
    Subject(#[from] SubjectError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// An event that was brought to this pod's sockets, and what is needed for the rest of its way.
struct Taken {
    event: Arc<Event>,
    /// How it came.
    delivery: Delivery,
    ack_token: AckToken,
    /// It is in flight.
    permit: Permit,
    /// Open until it is settled, if it is traced.
    span: Option<Span>,
    /// What became of it here.
    here: Delivered,
}

/// What dispatching works with.
#[derive(Clone)]
pub struct Dispatcher {
    /// Where events come from.
    pub source: Arc<dyn EventSource>,
    /// Ends the pauses between pulls.
    pub timer: Arc<FineTimer>,
    /// Where routes are looked up.
    pub routes: Arc<dyn Routes>,
    /// Who is there.
    pub directory: Arc<Directory>,
    /// The way to this pod's sockets.
    pub local: LocalDelivery,
    /// The way to other pods.
    pub forwarder: Arc<Forwarder>,
    /// How this pod is.
    pub wellness: Arc<Wellness>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Told whether the stream answers.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// True once this pod has its place in the fleet.
    pub joined: watch::Receiver<bool>,
    /// Counts what is in flight, and says when to take less.
    pub memory: Arc<Memory>,
    /// One permit an event in flight.
    pub in_flight: Arc<Semaphore>,
    /// Takes what is to be settled; [`Dispatcher::settle`] reads the other end.
    pub settled: mpsc::UnboundedSender<Settled>,
}

/// So many events may be in flight in one pod, whatever the consumer allows.
pub const MAX_IN_FLIGHT: usize = 16_384;

impl Dispatcher {
    /// Takes and dispatches events until `stop`, then gives back what was fetched and not begun.
    pub async fn run(&self, stop: &CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.joined() => self.wellness.takes_events(true),
        }
        // Bounded by the permits of what it holds.
        let (taken, to_seek) = mpsc::unbounded_channel();
        tokio::join!(self.take(stop, taken), self.resolve(to_seek));
    }

    async fn take(&self, stop: &CancellationToken, taken: mpsc::UnboundedSender<Vec<Taken>>) {
        let (mut complained_at, mut pauses): (Option<Instant>, _) = (None, PULL_PAUSES);
        loop {
            let batch = self.config.borrow().app.nats_pull_batch;
            let pulled = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                pulled = self.pull(batch) => pulled,
            };
            match pulled {
                Ok((raw, permits)) => {
                    complained_at = None;
                    pauses.reset();
                    let mut pause = time_to_write(&raw);
                    if self.wellness.stance().gives_back() && raw.iter().any(|raw| raw.delivery.count > 1) {
                        pause = pause.max(FOR_OTHERS);
                    }
                    let linger = Linger::of(raw.len(), batch, BETWEEN_PULLS).no_shorter_than(pause);
                    self.bring(raw, permits, &taken).await;
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = linger.wait_by(&self.timer) => {}
                    }
                }
                Err(error) => {
                    if complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                        complained_at = Some(Instant::now());
                        tracing::warn!(error = %Chain(&error), "no events can be taken; sockets stay, and the durable consumer will catch up");
                    }
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(pauses.pause()) => {}
                    }
                }
            }
        }
        drop(taken);
        self.wellness.takes_events(false);
        self.source.close().await;
    }

    async fn joined(&self) {
        let _ = self.joined.clone().wait_for(|joined| *joined).await;
    }

    /// Pulls no more events than may be in flight.
    async fn pull(&self, batch: usize) -> Result<(Vec<RawEvent>, OwnedSemaphorePermit), SourceError> {
        let batch = self.memory.may_pull(batch).await;
        let first = Arc::clone(&self.in_flight).acquire_owned().await;
        let Ok(mut permits) = first else { std::future::pending().await };
        let more = batch.saturating_sub(1).min(self.in_flight.available_permits());
        if let Ok(more) = Arc::clone(&self.in_flight).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            permits.merge(more);
        }
        let raw = self.source.pull(permits.num_permits()).await?;
        Ok((raw, permits))
    }

    /// Brings events to this pod's sockets, and hands them on.
    async fn bring(&self, raw: Vec<RawEvent>, mut permits: OwnedSemaphorePermit, taken: &mpsc::UnboundedSender<Vec<Taken>>) {
        self.apply_limits();
        let prefix = self.config.borrow().nats.subject_prefix.clone();
        let mut events = Vec::with_capacity(raw.len());
        let mut poison = Vec::new();
        for raw in raw {
            match parse(&prefix, &raw) {
                Ok(mut event) => {
                    let span = trace(&mut event);
                    events.push((Arc::new(event), raw.delivery, raw.ack_token, span));
                }
                Err(why) => {
                    tracing::warn!(
                        event.seq = raw.seq, event.bytes = raw.payload.len(), request.id = raw.request_id, %why,
                        "an event can't be read and is dropped from the stream's deliveries"
                    );
                    poison.push((raw.ack_token, Settlement::Terminate));
                }
            }
        }
        let delivered = self.local.deliver_local(events.iter().map(|(event, ..)| event.as_ref()), Path::Local);
        let mut batch = Vec::with_capacity(events.len());
        for ((event, delivery, ack_token, span), here) in events.into_iter().zip(delivered) {
            if self.metrics.recording() {
                self.metrics.sharded().received(event.address.kind());
            }
            if delivery.count > 1 {
                self.metrics.events_redelivered_total.inc();
            }
            if let Some(place) = permits.split(1) {
                let charge = self.memory.charge(Kind::Dispatch, event.payload.bytes().len() + EVENT_OVERHEAD);
                let permit = Permit::new(place, charge);
                batch.push(Taken { event, delivery, ack_token, permit, span, here });
            }
        }
        // Here already, as whoever looks routes up may have to wait for the store.
        if let Some((batch, _)) = self.pass_on(batch) {
            // Its other end lives as long as this one.
            let _ = taken.send(batch);
        }
        if !poison.is_empty() {
            self.metrics.events_settled_total.with_label_values(&[SettledAs::Poison.as_str()]).inc_by(poison.len() as u64);
            let _ = self.source.settle(poison).await;
        }
    }

    /// The consumer's limits are known late and can change; the share of a pod depends on how many there are.
    fn apply_limits(&self) {
        let limits = self.source.limits();
        let share = limits.max_ack_pending.saturating_mul(self.config.borrow().app.forward_parked_share_percent as usize) / 100;
        self.forwarder.set_limits(ForwardLimits::of(limits, share, self.directory.fleet_size()));
    }

    /// Settles events as their outcomes come in, until every sender is gone.
    pub async fn settle(&self, settled: &mut mpsc::UnboundedReceiver<Settled>) {
        let (mut batch, mut losses) = (Vec::with_capacity(MAX_SETTLEMENTS), Losses::default());
        loop {
            let taken = tokio::select! {
                biased;
                () = losses.due() => {
                    losses.tell();
                    continue;
                }
                taken = settled.recv_many(&mut batch, MAX_SETTLEMENTS) => taken,
            };
            if taken == 0 {
                return;
            }
            let mut settlements = Vec::with_capacity(batch.len());
            let ack_wait = self.source.limits().ack_wait;
            for settled in &mut batch {
                let late = settled.is_late(ack_wait);
                self.account(settled, late, &mut losses);
                if late {
                    continue;
                }
                settlements.push((std::mem::take(&mut settled.ack_token), settled.settlement));
            }
            self.show_in_flight();
            if let Err(error) = self.source.settle(settlements).await {
                tracing::debug!(error = %Chain(&error), events = batch.len(), "events could not be settled and will be delivered again");
            }
            batch.clear();
        }
    }

    fn account(&self, settled: &Settled, late: bool, losses: &mut Losses) {
        let kind = settled.event.address.kind().as_str();
        let outcome = match settled.settlement {
            Settlement::Ack => SettledAs::Acked,
            Settlement::Terminate if !late => SettledAs::GivenUp,
            Settlement::Terminate | Settlement::Retry(_) | Settlement::Extend => SettledAs::Retried,
        };
        if self.metrics.recording() {
            self.metrics.sharded().settled(outcome);
        }
        if settled.settlement == Settlement::Ack && !settled.taken {
            self.metrics.events_unclaimed_total.with_label_values(&[kind]).inc();
        }
        if settled.settlement != Settlement::Terminate || late {
            return;
        }
        losses.note(settled.event.seq);
        for peer in &settled.given_up {
            self.forwarder.owe_gap(peer, settled.event.address.routes(), gap_of(&settled.event));
        }
    }

    fn show_in_flight(&self) {
        let in_flight = MAX_IN_FLIGHT.saturating_sub(self.in_flight.available_permits());
        self.metrics.events_in_flight.set(gauge(in_flight));
    }

    /// Waits until nothing is in flight, at most until the deadline. True if so.
    pub async fn finished(&self, deadline: Instant) -> bool {
        let all = u32::try_from(MAX_IN_FLIGHT).unwrap_or(u32::MAX);
        tokio::time::timeout_at(deadline, self.in_flight.acquire_many(all)).await.is_ok()
    }
}

/// Nothing for less than a millisecond's bytes.
fn time_to_write(raw: &[RawEvent]) -> Duration {
    let bytes: usize = raw.iter().map(|raw| raw.payload.len()).sum();
    Duration::from_millis((bytes / BYTES_A_MILLISECOND).try_into().unwrap_or(u64::MAX))
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Opens the event's span, if it is traced, and makes it what comes after hangs on.
fn trace(event: &mut Event) -> Option<Span> {
    let kind = event.address.kind().as_str();
    let span = spans::dispatch(event.traceparent.as_deref(), kind, event.seq, event.payload.event_id())?;
    event.traceparent = spans::traceparent_of(&span);
    Some(span)
}

fn parse(prefix: &str, raw: &RawEvent) -> Result<Event, Poison> {
    Ok(Event {
        address: Address::parse(prefix, &raw.subject)?,
        payload: Payload::parse(&raw.payload)?,
        stream: raw.stream,
        seq: raw.seq,
        stored_at: raw.stored_at,
        request_id: raw.request_id.clone(),
        traceparent: raw.traceparent.clone(),
    })
}
