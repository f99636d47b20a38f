//! The one task that asks for events: it keeps about as many requested or buffered as a pull takes, and finds the consumer again
//! after whatever befell it.
//!
//! All requests of a pod answer to one inbox, subscribed until the source is closed or nobody pulls any more, and until then a
//! request is never taken back: whatever the server sends for one, however late, comes out of the buffer. So nothing is swallowed
//! between a request and a pull; the worst is a buffer that holds one batch too many after a reconnect.

use std::{sync::Arc, time::Duration};

use async_nats::Subscriber;
use daisi_ws_domain::event::StreamId;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::{
    advisories::Advisories,
    arrival::Arrival,
    bind::{self, Binding},
    buffer::ConsumerLink,
    settle::give_back,
    shared::Shared,
    trouble::{Away, Denied, ServerSays},
    wire::{self, Incoming, NextRequest, PROBE},
};
use crate::{
    ports::{RawEvent, SourceError},
    runtime::backoff::Backoff,
    telemetry::Chain,
};

/// How long the server keeps a request that it can't fill, at most. It is kept for half the ack wait where that is shorter: a pod
/// that stands still is handed events for as long as its request lasts, and what it was handed then goes to another pod when it
/// is delivered again, not to its request once more.
const EXPIRES: Duration = Duration::from_secs(5);
/// How often the server says that it still has our request.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Nothing heard for this long while a request is out: the server, the consumer or the request is gone. Two heartbeats may be
/// late.
const SILENCE: Duration = Duration::from_millis(2500);
/// Bytes that one request may bring, so that a batch of huge events does not fill the memory.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Messages read from the inbox before room and time are looked at again.
const READ_AT_ONCE: usize = 1024;
/// How often silence and abandoned events are looked for.
const TICK: Duration = Duration::from_millis(250);
/// The waits between attempts to find the consumer.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// How old what is known of the consumer may get: an operator may change its limits.
const REFRESH: Duration = Duration::from_secs(30);
/// Longest wait until the client takes a command; it does not while it reconnects and its queue is full.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for what is on its way when the pod stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs until the source is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut backoff = BACKOFF;
    while !shared.closing.is_cancelled() {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => break,
            () = shared.is_held(false) => {}
        }
        let inbox = shared.client.new_inbox();
        let subscription = timeout(COMMAND_TIMEOUT, shared.client.subscribe(format!("{inbox}.*")));
        let subscriber = tokio::select! {
            () = shared.closing.cancelled() => break,
            subscriber = subscription => subscriber,
        };
        match subscriber {
            Ok(Ok(subscriber)) => {
                backoff.reset();
                Puller::new(&shared, inbox, subscriber).serve().await;
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(backoff.pause()).await,
        }
    }
    give_back(&shared.client, shared.buffer.empty()).await;
    shared.closed.cancel();
}

struct Puller<'a> {
    shared: &'a Shared,
    inbox: String,
    subscriber: Subscriber,
    /// Where the server says that it delivers an event no more; only for a consumer that has a limit.
    advisories: Advisories,
    binding: Option<Binding>,
    bound_at: Instant,
    /// The stream that was bound last: what still comes of earlier requests is its.
    stream: StreamId,
    /// The consumer was found, but ended or refused a request since anything was heard of it: finding it again proves nothing.
    doubtful: bool,
    /// Number of the next request; a status about one below `first_live` is about a request that was given up.
    next_request: u64,
    first_live: u64,
    /// Events asked for and not come yet.
    outstanding: usize,
    /// When the server was last heard, or a first request sent.
    heard: Instant,
    /// What is known of the inbox.
    arrival: Arrival,
    /// The next attempt to find the consumer, or to ask, is not before this time.
    retry_at: Instant,
    backoff: Backoff,
}

impl<'a> Puller<'a> {
    fn new(shared: &'a Shared, inbox: String, subscriber: Subscriber) -> Self {
        let now = Instant::now();
        Self {
            shared,
            inbox,
            subscriber,
            advisories: Advisories::default(),
            binding: None,
            bound_at: now,
            stream: StreamId(0),
            doubtful: false,
            next_request: 0,
            first_live: 0,
            outstanding: 0,
            heard: now,
            arrival: Arrival::new(now),
            retry_at: now,
            backoff: BACKOFF,
        }
    }

    /// Returns when the source is closed or held, nobody pulls, or the client has ended the subscription.
    async fn serve(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = self.shared;
        // Without an inbox the server drops the requests that are out. Waited for once: to begin to listen takes locks, which is
        // much for every message.
        let over = shared.is_over();
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = &mut over => return self.drain().await,
                () = self.advance() => {}
            }
            tokio::select! {
                biased;
                () = &mut over => return self.drain().await,
                message = self.subscriber.next() => match message {
                    Some(message) => self.read(message),
                    None => return,
                },
                gap = self.advisories.next() => shared.known.progress(|progress| progress.miss(gap)),
                // Whatever else comes is looked at only while the inbox is empty.
                () = shared.changed.notified() => {
                    self.arrival.seen_empty();
                    self.reconnected();
                }
                () = shared.buffer.demand() => self.arrival.seen_empty(),
                _ = tick.tick() => {
                    self.arrival.seen_empty();
                    self.listen_for_silence();
                    if shared.buffer.is_abandoned(shared.buffer.limits().ack_wait / 2) {
                        tracing::warn!("nobody pulls; fetched events go back to the stream");
                        return self.drain().await;
                    }
                }
            }
        }
    }

    /// Finds the consumer if it has to, and asks for events if there is room. Dropping it loses nothing but an attempt.
    async fn advance(&mut self) {
        if self.retry_at > Instant::now() {
            return;
        }
        if self.binding.is_none() || self.bound_at.elapsed() >= REFRESH {
            self.bind().await;
        }
        if self.binding.is_some() {
            self.request().await;
        }
    }

    async fn bind(&mut self) {
        self.bound_at = Instant::now();
        if !self.shared.is_connected() {
            self.down(self.shared.trouble.reason(Away::NoConnection));
            return self.later();
        }
        match bind::bind(&self.shared.js, &self.shared.nats, self.shared.defaults, &self.shared.known).await {
            Ok(binding) => {
                self.shared.buffer.set_limits(binding.limits);
                if binding.made {
                    let (stream, consumer) = (&self.shared.nats.stream_name, &self.shared.nats.consumer_name);
                    tracing::warn!(
                        nats.stream = %stream, nats.consumer = %consumer,
                        "the stream or the consumer was missing and has been made"
                    );
                }
                self.shared.known.warn(&binding.warnings);
                let Shared { client, nats, .. } = self.shared;
                self.advisories.listen(client, nats, binding.max_deliveries.is_some(), COMMAND_TIMEOUT).await;
                self.stream = binding.stream;
                self.binding = Some(binding);
                if !self.shared.buffer.is_up() {
                    self.probe().await;
                }
            }
            Err(error) => {
                self.binding = None;
                self.down(self.shared.trouble.no_binding(error));
                self.later();
            }
        }
    }

    /// Only an answer shows that events will come; there may be no reason to ask for one yet.
    async fn probe(&self) {
        let reply = format!("{}.{PROBE}", self.inbox);
        let subject = wire::next_subject(&self.shared.nats);
        let sent = self.shared.client.publish_with_reply(subject, reply, wire::Probe::body());
        // If it does not get there, what is asked for later will, or silence tells.
        let _ = timeout(COMMAND_TIMEOUT, sent).await;
    }

    async fn request(&mut self) {
        let Some(binding) = &self.binding else { return };
        let batch = self.shared.buffer.room(self.outstanding).min(binding.max_batch);
        if batch == 0 {
            return;
        }
        // A single event must fit, or it would be refused for ever.
        let max_bytes = MAX_BYTES.max(self.shared.client.max_payload().saturating_mul(2)).min(binding.max_bytes);
        let expires = EXPIRES.min(self.shared.buffer.limits().ack_wait / 2).min(binding.max_expires);
        let request = NextRequest { batch, max_bytes, expires, idle_heartbeat: HEARTBEAT.min(expires / 2) };
        let Ok(body) = serde_json::to_vec(&request) else { return };
        let subject = wire::next_subject(&self.shared.nats);
        let reply = format!("{}.{}", self.inbox, self.next_request);
        // Counted before it is sent: if this future is dropped, the request may or may not be out, and silence will tell.
        self.next_request += 1;
        if self.outstanding == 0 {
            self.heard = Instant::now();
        }
        self.outstanding += batch;
        let sent = timeout(COMMAND_TIMEOUT, self.shared.client.publish_with_reply(subject, reply, body.into())).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.lose();
            self.down(SourceError::unreachable(Away::NoRequest));
            self.later();
        }
    }

    /// Takes in a message and what else is there already.
    fn read(&mut self, first: async_nats::Message) {
        let mut events = Vec::new();
        let received_at = self.arrival.earliest((self.outstanding > 0).then_some(self.heard));
        let mut next = Some(first);
        let mut left = READ_AT_ONCE;
        while let Some(message) = next.take() {
            self.take_in(message, received_at, &mut events);
            left -= 1;
            if left > 0 {
                next = self.subscriber.next().now_or_never().flatten();
                if next.is_none() {
                    self.arrival.seen_empty();
                }
            }
        }
        if !events.is_empty() {
            self.answered();
            let now = Instant::now();
            let limit = self.binding.as_ref().and_then(|binding| binding.max_deliveries);
            self.shared.known.time(|time| {
                for event in &mut events {
                    event.delivery.is_last = limit.is_some_and(|limit| event.delivery.count >= limit);
                    event.delivery.age = time.age(event.stored_at, now).saturating_sub(now - received_at);
                }
            });
            self.shared.buffer.put(events);
        }
    }

    fn take_in(&mut self, message: async_nats::Message, received_at: Instant, events: &mut Vec<RawEvent>) {
        self.heard = Instant::now();
        match wire::read(message, self.stream, received_at) {
            Incoming::Event(event) => {
                self.outstanding = self.outstanding.saturating_sub(1);
                events.push(event);
            }
            Incoming::Heartbeat | Incoming::Over { request: PROBE, .. } => self.answered(),
            Incoming::Gone { request: PROBE, reason } => self.down(SourceError::unreachable(ServerSays(reason))),
            Incoming::Refused { request: PROBE, reason } => self.down(SourceError::refused(ServerSays(reason))),
            Incoming::Over { request, left } if self.is_live(request) => {
                self.outstanding = left.map_or(0, |left| self.outstanding.saturating_sub(left));
                self.answered();
            }
            Incoming::Gone { request, reason } if self.is_live(request) => {
                tracing::debug!(reason, "the consumer ended a request; it is looked up again");
                self.lose();
                if self.doubtful {
                    self.down(SourceError::unreachable(ServerSays(reason)));
                }
                self.doubtful = true;
                self.later();
            }
            Incoming::Refused { request, reason } if self.is_live(request) => {
                self.lose();
                self.down(SourceError::refused(ServerSays(reason)));
                self.doubtful = true;
                self.later();
            }
            Incoming::Over { .. } | Incoming::Gone { .. } | Incoming::Refused { .. } | Incoming::Foreign => {}
        }
    }

    /// The consumer works.
    fn answered(&mut self) {
        if self.binding.is_some() {
            self.doubtful = false;
            self.backoff.reset();
            self.up();
        }
    }

    fn up(&self) {
        self.shared.trouble.answered();
        if let Some(denied) = self.shared.trouble.denied() {
            // Events come, and none is settled; or none will come from the next request on.
            return self.down(SourceError::refused(Denied(denied)));
        }
        if !self.shared.buffer.is_up() && self.shared.buffer.set_link(ConsumerLink::Up) {
            tracing::info!("the event stream is there");
        }
    }

    fn is_live(&self, request: u64) -> bool {
        (self.first_live..self.next_request).contains(&request)
    }

    fn reconnected(&mut self) {
        self.lose();
        if self.shared.is_connected() {
            self.backoff.reset();
        } else {
            self.down(self.shared.trouble.reason(Away::Lost));
        }
    }

    fn listen_for_silence(&mut self) {
        if self.outstanding > 0 && self.heard.elapsed() >= SILENCE {
            self.lose();
            self.down(self.shared.trouble.reason(Away::Silent));
        }
    }

    /// Forgets the requests that are out, and looks the consumer up before the next.
    fn lose(&mut self) {
        self.binding = None;
        self.outstanding = 0;
        self.first_live = self.next_request;
        self.retry_at = Instant::now();
    }

    fn later(&mut self) {
        self.retry_at = Instant::now() + self.backoff.pause();
    }

    fn down(&self, error: SourceError) {
        let reason = Chain(&error).to_string();
        if self.shared.buffer.set_link(ConsumerLink::Down(error)) {
            tracing::warn!(reason, "the event stream is unavailable; it is tried again until it is there");
        }
    }

    /// Gives everything back: the buffer, and what is on its way. Without the subscription the server drops the requests that are
    /// out; there is no other way to take one back.
    async fn drain(mut self) {
        let mut ack_tokens = self.shared.buffer.empty();
        // The subscription ends once the server has confirmed that it sends no more.
        if matches!(timeout(COMMAND_TIMEOUT, self.subscriber.drain()).await, Ok(Ok(()))) {
            let until = Instant::now() + DRAIN_TIMEOUT;
            while let Ok(Some(message)) = tokio::time::timeout_at(until, self.subscriber.next()).await {
                if let Incoming::Event(event) = wire::read(message, self.stream, Instant::now()) {
                    ack_tokens.push(event.ack_token);
                }
            }
        }
        give_back(&self.shared.client, ack_tokens).await;
    }
}
