//! What every event source promises, on the memory stream and on JetStream.

use std::time::Duration;

use async_trait::async_trait;
use daisi_ws_domain::{
    event::{Address, EventKind},
    ids::PodId,
};
use daisi_ws_service::{
    adapters::{
        memory::stream::{Headers, Stream, StreamOptions},
        nats::{NatsSource, Publisher},
    },
    ports::{AckToken, EventSource, RawEvent, Settlement, SourceError},
};
use tokio::{sync::Mutex, time::Instant};

use crate::support::nats::{DEFAULTS, NatsServer, store_anything, tasks};

/// No step of a test takes longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
const SUBJECT: &str = "wa.acme.a1.chats";

/// A fleet's stream, real or not.
#[async_trait]
trait World: Send + Sync {
    async fn pod(&self, name: &str) -> Box<dyn EventSource>;
    async fn publish(&self, subject: &str, payload: &str) -> u64;
    /// Events delivered and not settled.
    async fn unsettled(&self) -> usize;
    async fn set_down(&self, down: bool);
}

struct Memory {
    stream: Stream,
}

impl Memory {
    async fn new() -> Self {
        let options =
            StreamOptions { ack_wait: DEFAULTS.ack_wait, max_ack_pending: DEFAULTS.max_ack_pending, ..StreamOptions::default() };
        Self { stream: Stream::new(options) }
    }
}

#[async_trait]
impl World for Memory {
    async fn pod(&self, name: &str) -> Box<dyn EventSource> {
        Box::new(self.stream.handle(PodId::parse(name).unwrap()))
    }

    async fn publish(&self, subject: &str, payload: &str) -> u64 {
        let headers = Headers { request_id: Some("req-1".to_owned()), traceparent: Some("00-abc-def-01".to_owned()) };
        self.stream.append(subject, payload.to_owned(), headers).unwrap()
    }

    async fn unsettled(&self) -> usize {
        self.stream.ack_pending()
    }

    async fn set_down(&self, down: bool) {
        self.stream.set_down(down);
    }
}

struct Real {
    server: Mutex<NatsServer>,
    publisher: Publisher,
}

impl Real {
    async fn new() -> Self {
        let server = NatsServer::start().await;
        let publisher = Publisher::connect(&server.section()).await.unwrap();
        Self { server: Mutex::new(server), publisher }
    }
}

#[async_trait]
impl World for Real {
    async fn pod(&self, _: &str) -> Box<dyn EventSource> {
        let nats = self.server.lock().await.section();
        Box::new(NatsSource::connect(&nats, DEFAULTS, &tasks()).await.unwrap())
    }

    async fn publish(&self, subject: &str, payload: &str) -> u64 {
        let headers = [("X-Request-ID", "req-1"), ("traceparent", "00-abc-def-01")];
        let deadline = Instant::now() + PATIENCE;
        loop {
            match store_anything(&self.publisher, subject, payload.to_owned(), &headers).await {
                Ok(seq) => return seq,
                // Just after a restart, JetStream may need a moment.
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    async fn unsettled(&self) -> usize {
        let js = async_nats::jetstream::new(self.publisher.client().clone());
        js.get_stream("wa_stream").await.unwrap().consumer_info("ws_fanout").await.unwrap().num_ack_pending
    }

    async fn set_down(&self, down: bool) {
        let mut server = self.server.lock().await;
        if down { server.kill() } else { server.restart().await }
    }
}

/// Pulls from the pods in turn until `count` events came or `wait` is over; gives each with the index of its pod.
async fn gather(pods: &[&dyn EventSource], count: usize, wait: Duration) -> Vec<(usize, RawEvent)> {
    let deadline = Instant::now() + wait;
    let mut gathered = Vec::new();
    while gathered.len() < count && Instant::now() < deadline {
        for (index, pod) in pods.iter().enumerate() {
            if let Ok(Ok(events)) = tokio::time::timeout(Duration::from_millis(20), pod.pull(100)).await {
                gathered.extend(events.into_iter().map(|event| (index, event)));
            }
        }
    }
    gathered
}

/// Pulls one event from one pod.
async fn one(pod: &dyn EventSource) -> RawEvent {
    let mut events = gather(&[pod], 1, PATIENCE).await;
    assert_eq!(events.len(), 1);
    events.remove(0).1
}

async fn settle(pod: &dyn EventSource, events: &[RawEvent], settlement: Settlement) {
    let settlements: Vec<(AckToken, Settlement)> = events.iter().map(|event| (event.ack_token.clone(), settlement)).collect();
    pod.settle(settlements).await.unwrap();
}

/// Nothing comes for longer than an ack wait.
async fn nothing_comes(pods: &[&dyn EventSource]) {
    let came = gather(pods, 1, DEFAULTS.ack_wait * 2).await;
    assert!(came.is_empty(), "{came:?}");
}

/// Waits until all that was delivered is settled.
async fn all_is_settled(world: &dyn World) {
    let deadline = Instant::now() + PATIENCE;
    while world.unsettled().await > 0 {
        assert!(Instant::now() < deadline, "{} events are not settled", world.unsettled().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn an_unsettled_event_comes_again_after_the_ack_wait(world: &dyn World) {
    let pod = world.pod("a").await;
    let seq = world.publish(SUBJECT, "{}").await;
    let first = one(&*pod).await;
    let since = Instant::now();
    assert_eq!((first.seq, first.delivery.count), (seq, 1));
    let second = one(&*pod).await;
    assert_eq!((second.seq, second.delivery.count, second.stream), (seq, 2, first.stream));
    assert!(since.elapsed() >= DEFAULTS.ack_wait * 8 / 10, "{:?}", since.elapsed());
    settle(&*pod, &[second], Settlement::Ack).await;
    all_is_settled(world).await;
}

async fn an_acked_event_never_comes_again(world: &dyn World) {
    let pod = world.pod("a").await;
    world.publish(SUBJECT, "{}").await;
    let event = one(&*pod).await;
    settle(&*pod, &[event], Settlement::Ack).await;
    all_is_settled(world).await;
    nothing_comes(&[&*pod]).await;
}

async fn a_terminated_event_never_comes_again(world: &dyn World) {
    let pod = world.pod("a").await;
    world.publish(SUBJECT, "not json").await;
    let event = one(&*pod).await;
    settle(&*pod, &[event], Settlement::Terminate).await;
    all_is_settled(world).await;
    nothing_comes(&[&*pod]).await;
}

async fn a_retry_comes_after_its_delay_to_any_pod(world: &dyn World) {
    let (a, b) = (world.pod("a").await, world.pod("b").await);
    let seq = world.publish(SUBJECT, "{}").await;
    let first = one(&*a).await;
    let since = Instant::now();
    let delay = Duration::from_millis(300);
    settle(&*a, &[first], Settlement::Retry(delay)).await;
    // The pod that gave it back has gone; only the other can get it.
    a.close().await;
    let again = one(&*b).await;
    assert_eq!((again.seq, again.delivery.count), (seq, 2));
    let waited = since.elapsed();
    assert!(waited >= delay * 8 / 10 && waited < DEFAULTS.ack_wait, "{waited:?}");
}

async fn a_late_ack_of_an_earlier_delivery_counts(world: &dyn World) {
    let pod = world.pod("a").await;
    world.publish(SUBJECT, "{}").await;
    let first = one(&*pod).await;
    assert_eq!(one(&*pod).await.delivery.count, 2);
    settle(&*pod, &[first], Settlement::Ack).await;
    all_is_settled(world).await;
}

async fn an_event_that_is_still_worked_on_has_its_ack_wait_again(world: &dyn World) {
    let pod = world.pod("a").await;
    world.publish(SUBJECT, "{}").await;
    let first = one(&*pod).await;
    let since = first.delivery.received_at;
    for part in 1..=3 {
        tokio::time::sleep_until(since + DEFAULTS.ack_wait * part / 2).await;
        settle(&*pod, std::slice::from_ref(&first), Settlement::Extend).await;
    }
    let again = one(&*pod).await;
    assert_eq!(again.delivery.count, 2);
    assert!(since.elapsed() >= DEFAULTS.ack_wait * 23 / 10, "{:?}", since.elapsed());
    settle(&*pod, &[again], Settlement::Ack).await;
    all_is_settled(world).await;
}

async fn an_event_is_as_old_as_the_streams_own_clock_says(world: &dyn World) {
    let pod = world.pod("a").await;
    world.publish(SUBJECT, "{}").await;
    let stored = Instant::now();
    let first = one(&*pod).await;
    assert!(first.delivery.age() < DEFAULTS.ack_wait / 2, "{:?}", first.delivery);
    let second = one(&*pod).await;
    let (age, known) = (second.delivery.age(), stored.elapsed());
    assert!(age + Duration::from_millis(50) >= known && age <= known + Duration::from_millis(500), "{age:?}, {known:?}");
    settle(&*pod, &[second], Settlement::Ack).await;
}

async fn two_pods_share_the_consumer_and_each_event_goes_to_one(world: &dyn World) {
    let (a, b) = (world.pod("a").await, world.pod("b").await);
    let mut published = Vec::new();
    for _ in 0..200 {
        published.push(world.publish(SUBJECT, "{}").await);
    }
    let mut taken = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while taken.len() < published.len() && Instant::now() < deadline {
        for (index, event) in gather(&[&*a, &*b], 1, PATIENCE).await {
            let pod = if index == 0 { &a } else { &b };
            taken.push(event.seq);
            settle(&**pod, &[event], Settlement::Ack).await;
        }
    }
    taken.sort_unstable();
    assert_eq!(taken, published);
    all_is_settled(world).await;
}

async fn events_keep_their_order_within_a_pod(world: &dyn World) {
    let pod = world.pod("a").await;
    let mut published = Vec::new();
    for _ in 0..100 {
        published.push(world.publish(SUBJECT, "{}").await);
    }
    let mut taken = Vec::new();
    while taken.len() < published.len() {
        let events = tokio::time::timeout(PATIENCE, pod.pull(7)).await.unwrap().unwrap();
        assert!(events.len() <= 7);
        taken.extend(events.iter().map(|event| event.seq));
        settle(&*pod, &events, Settlement::Ack).await;
    }
    assert_eq!(taken, published);
}

async fn a_pull_returns_with_the_few_that_are_there(world: &dyn World) {
    let pod = world.pod("a").await;
    world.publish(SUBJECT, "{}").await;
    let since = Instant::now();
    let events = tokio::time::timeout(PATIENCE, pod.pull(500)).await.unwrap().unwrap();
    assert_eq!(events.len(), 1);
    assert!(since.elapsed() < Duration::from_millis(900), "{:?}", since.elapsed());
}

async fn dropped_pulls_lose_nothing(world: &dyn World) {
    let pod = world.pod("a").await;
    let mut published = Vec::new();
    let mut taken = Vec::new();
    for round in 0..60u64 {
        published.push(world.publish(SUBJECT, "{}").await);
        // Cut short at every stage: before the first poll, amid it, just when an event arrives.
        let cut = Duration::from_micros(round * 40);
        if let Ok(Ok(events)) = tokio::time::timeout(cut, pod.pull(10)).await {
            taken.extend(events);
        }
    }
    taken
        .extend(gather(&[&*pod], published.len() - taken.len(), DEFAULTS.ack_wait / 2).await.into_iter().map(|(_, event)| event));
    let seqs: Vec<u64> = taken.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, published);
    settle(&*pod, &taken, Settlement::Ack).await;
    all_is_settled(world).await;
}

async fn closing_gives_back_at_once_and_ends_a_pull(world: &dyn World) {
    let (a, b) = (world.pod("a").await, world.pod("b").await);
    // So that the pod has asked for more than it pulls.
    assert!(tokio::time::timeout(Duration::from_millis(300), a.pull(10)).await.is_err());
    let seq = world.publish(SUBJECT, "{}").await;
    let seen = Instant::now() + Duration::from_millis(200);
    tokio::time::sleep_until(seen).await;
    let since = Instant::now();
    a.close().await;
    assert!(matches!(a.pull(1).await, Err(SourceError::Closed)));
    assert_eq!(one(&*b).await.seq, seq);
    assert!(since.elapsed() < DEFAULTS.ack_wait / 2, "{:?}", since.elapsed());
    let (pulled, ()) = tokio::join!(b.pull(1), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        b.close().await;
    });
    assert!(pulled.is_err());
}

async fn a_pod_that_holds_gives_back_at_once_takes_nothing_and_settles_and_goes_on_when_told(world: &dyn World) {
    let (a, b) = (world.pod("a").await, world.pod("b").await);
    let before = world.publish(SUBJECT, "{}").await;
    let held = one(&*a).await;
    assert_eq!(held.seq, before);
    // So that the pod has asked for more than it pulls.
    assert!(tokio::time::timeout(Duration::from_millis(300), a.pull(10)).await.is_err());
    let fetched = world.publish(SUBJECT, "{}").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let since = Instant::now();
    a.hold(true);
    settle(&*a, &[held], Settlement::Ack).await;
    let event = one(&*b).await;
    assert_eq!(event.seq, fetched);
    settle(&*b, &[event], Settlement::Ack).await;
    for _ in 0..20 {
        let seq = world.publish(SUBJECT, "{}").await;
        let (pulled, event) = tokio::join!(tokio::time::timeout(Duration::from_millis(20), a.pull(10)), one(&*b));
        assert!(pulled.is_err() && event.seq == seq && event.delivery.count == 1, "{pulled:?} {event:?}");
        settle(&*b, &[event], Settlement::Ack).await;
    }
    assert!(since.elapsed() < DEFAULTS.ack_wait * 3 / 2, "{:?}", since.elapsed());
    all_is_settled(world).await;
    b.close().await;
    a.hold(false);
    let seq = world.publish(SUBJECT, "{}").await;
    let event = one(&*a).await;
    assert_eq!(event.seq, seq);
    settle(&*a, &[event], Settlement::Ack).await;
}

async fn an_outage_is_an_error_within_seconds_and_loses_nothing(world: &dyn World) {
    let pod = world.pod("a").await;
    let before = world.publish(SUBJECT, "{}").await;
    let unsettled = one(&*pod).await;
    assert_eq!(unsettled.seq, before);
    assert!(pod.is_connected());

    world.set_down(true).await;
    for _ in 0..2 {
        let since = Instant::now();
        assert!(pod.pull(10).await.is_err());
        assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    }
    assert!(!pod.is_connected());
    assert!(pod.settle(vec![(AckToken("1.1".to_owned()), Settlement::Ack)]).await.is_err());

    world.set_down(false).await;
    let since = Instant::now();
    let after = world.publish(SUBJECT, "{}").await;
    let events = gather(&[&*pod], 2, PATIENCE).await;
    let mut seqs: Vec<u64> = events.iter().map(|(_, event)| event.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [before, after]);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert!(pod.is_connected());
    let events: Vec<RawEvent> = events.into_iter().map(|(_, event)| event).collect();
    settle(&*pod, &events, Settlement::Ack).await;
    all_is_settled(world).await;
}

async fn a_pod_that_joins_later_takes_what_nobody_took(world: &dyn World) {
    let early = world.pod("a").await;
    let seq = world.publish(SUBJECT, "{}").await;
    // A pod that joins later finds the consumer and takes what nobody took.
    early.close().await;
    let late = world.pod("b").await;
    assert_eq!(one(&*late).await.seq, seq);
}

async fn an_event_arrives_as_it_was_published(world: &dyn World) {
    let pod = world.pod("a").await;
    let fixture: Vec<serde_json::Value> = serde_json::from_str(include_str!("../../fixtures/events.json")).unwrap();
    let mut published = Vec::new();
    for entry in &fixture {
        let (subject, payload) = (entry["subject"].as_str().unwrap(), entry["event"].to_string());
        published.push((world.publish(subject, &payload).await, subject.to_owned(), payload));
    }
    let events: Vec<RawEvent> = gather(&[&*pod], fixture.len(), PATIENCE).await.into_iter().map(|(_, event)| event).collect();
    let arrived: Vec<_> =
        events.iter().map(|e| (e.seq, e.subject.clone(), String::from_utf8(e.payload.to_vec()).unwrap())).collect();
    assert_eq!(arrived, published);
    let kinds: Vec<EventKind> = events.iter().map(|event| Address::parse("wa", &event.subject).unwrap().kind()).collect();
    assert_eq!(kinds, [EventKind::Message, EventKind::Chat, EventKind::Agent]);
    let now = daisi_ws_service::runtime::clock::now();
    for event in &events {
        assert_eq!((event.request_id.as_deref(), event.traceparent.as_deref()), (Some("req-1"), Some("00-abc-def-01")));
        assert!(event.stored_at <= now && now - event.stored_at < Duration::from_secs(60), "{:?}", event.stored_at);
    }
    settle(&*pod, &events, Settlement::Ack).await;
    all_is_settled(world).await;
}

async fn limits_are_those_of_a_consumer_that_was_made_here(world: &dyn World) {
    let limits = world.pod("a").await.limits();
    assert_eq!((limits.ack_wait, limits.max_ack_pending), (DEFAULTS.ack_wait, DEFAULTS.max_ack_pending));
}

async fn lag(pod: &dyn EventSource) -> (u64, usize) {
    let lag = pod.lag().await.unwrap();
    (lag.pending, lag.ack_pending)
}

async fn settled(pod: &dyn EventSource) -> u64 {
    pod.lag().await.unwrap().settled.unwrap().seq
}

async fn everything_up_to_the_oldest_unsettled_event_is_settled(world: &dyn World) {
    let (a, b) = (world.pod("a").await, world.pod("b").await);
    let mut published = Vec::new();
    for _ in 0..3 {
        published.push(world.publish(SUBJECT, "{}").await);
    }
    let events: Vec<RawEvent> = gather(&[&*a], 3, PATIENCE).await.into_iter().map(|(_, event)| event).collect();
    settle(&*a, &events[1..2], Settlement::Ack).await;
    assert_eq!(settled(&*b).await, published[0] - 1);
    settle(&*a, &events[..1], Settlement::Ack).await;
    let until = Instant::now() + PATIENCE;
    while settled(&*b).await < published[1] {
        assert!(Instant::now() < until, "{} of {published:?}", settled(&*b).await);
    }
    let read = b.lag().await.unwrap().settled.unwrap();
    assert_eq!((read.seq, read.stream), (published[1], events[0].stream));
    assert!(events.iter().all(|event| event.stored_at <= read.at), "{:?} {read:?}", events[2].stored_at);
}

async fn the_lag_counts_what_waits_and_what_is_not_settled_over_all_pods(world: &dyn World) {
    let (a, b) = (world.pod("a").await, world.pod("b").await);
    world.publish(SUBJECT, "{}").await;
    let event = one(&*a).await;
    assert_eq!(b.lag().await.unwrap().ack_pending, 1);
    settle(&*a, &[event], Settlement::Ack).await;
    all_is_settled(world).await;
    assert_eq!(lag(&*b).await, (0, 0));
    a.close().await;
    b.close().await;
    world.publish(SUBJECT, "{}").await;
    // Nobody asks for it any more.
    assert_eq!(lag(&*b).await, (1, 0));
    world.set_down(true).await;
    assert!(b.lag().await.is_err());
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(&super::Memory::new().await).await;
            })*
        }

        mod nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&super::Real::new().await).await;
            })*
        }
    };
}

on_both! {
    an_unsettled_event_comes_again_after_the_ack_wait,
    an_acked_event_never_comes_again,
    a_terminated_event_never_comes_again,
    a_retry_comes_after_its_delay_to_any_pod,
    a_late_ack_of_an_earlier_delivery_counts,
    an_event_that_is_still_worked_on_has_its_ack_wait_again,
    an_event_is_as_old_as_the_streams_own_clock_says,
    two_pods_share_the_consumer_and_each_event_goes_to_one,
    events_keep_their_order_within_a_pod,
    a_pull_returns_with_the_few_that_are_there,
    dropped_pulls_lose_nothing,
    closing_gives_back_at_once_and_ends_a_pull,
    a_pod_that_holds_gives_back_at_once_takes_nothing_and_settles_and_goes_on_when_told,
    an_outage_is_an_error_within_seconds_and_loses_nothing,
    a_pod_that_joins_later_takes_what_nobody_took,
    an_event_arrives_as_it_was_published,
    limits_are_those_of_a_consumer_that_was_made_here,
    the_lag_counts_what_waits_and_what_is_not_settled_over_all_pods,
    everything_up_to_the_oldest_unsettled_event_is_settled,
}
