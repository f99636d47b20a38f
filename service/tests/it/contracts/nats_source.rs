//! What JetStream as an event source does beyond what all sources do: what it finds and makes, who may come in, what it passes
//! on.

use std::time::Duration;

use async_nats::jetstream::{self, Context, consumer, stream};
use daisi_ws_service::{
    adapters::nats::{NatsSource, NatsStartError, PublishError, Publisher, publish},
    config::{Nats, Secret},
    ports::{EventSource as _, RawEvent, Settlement},
    telemetry::Chain,
};
use tokio::time::Instant;

use super::event_source::PATIENCE;
use crate::support::nats::{Access, DEFAULTS, NatsServer, publication, section, store_anything, tasks};

pub(crate) const SUBJECT: &str = "wa.acme.a1.chats";

pub(crate) async fn source(nats: &Nats) -> NatsSource {
    NatsSource::connect(nats, DEFAULTS, &tasks()).await.unwrap()
}

pub(crate) async fn refused(nats: &Nats) -> NatsStartError {
    match NatsSource::connect(nats, DEFAULTS, &tasks()).await {
        Ok(_) => panic!("it connected"),
        Err(error) => error,
    }
}

/// A server with somebody who looks at it from outside.
pub(crate) async fn world() -> (NatsServer, Publisher, Context) {
    let server = NatsServer::start().await;
    let publisher = Publisher::connect(&server.section()).await.unwrap();
    let js = jetstream::new(publisher.client().clone());
    (server, publisher, js)
}

pub(crate) async fn put(publisher: &Publisher, subject: &str) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store_anything(publisher, subject, "{}", &[]).await {
            Ok(seq) => return seq,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// Pulls through errors until `count` events came.
pub(crate) async fn pull(source: &NatsSource, count: usize) -> Vec<RawEvent> {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while events.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} events came", events.len());
        if let Ok(Ok(more)) = tokio::time::timeout(Duration::from_millis(100), source.pull(256)).await {
            events.extend(more);
        }
    }
    events
}

pub(crate) async fn ack(source: &NatsSource, events: &[RawEvent]) {
    let settlements: Vec<_> = events.iter().map(|event| (event.ack_token.clone(), Settlement::Ack)).collect();
    source.settle(settlements).await.unwrap();
}

pub(crate) fn seqs(events: &[RawEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

pub(crate) async fn consumer_info(js: &Context) -> consumer::Info {
    js.get_stream("wa_stream").await.unwrap().consumer_info("ws_fanout").await.unwrap()
}

pub(crate) fn stream_config(subjects: &[&str]) -> stream::Config {
    let subjects = subjects.iter().map(|s| (*s).to_owned()).collect();
    stream::Config { name: "wa_stream".to_owned(), subjects, ..Default::default() }
}

/// Waits until `holds`, calling it again and again.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// === what it finds and makes ===

#[tokio::test]
async fn what_is_missing_is_made_as_the_contract_says() {
    let (server, _, js) = world().await;
    source(&server.section()).await;
    let info = js.get_stream("wa_stream").await.unwrap().cached_info().config.clone();
    assert_eq!(info.subjects, ["wa.>"]);
    assert_eq!(
        (info.storage, info.retention, info.discard),
        (stream::StorageType::File, stream::RetentionPolicy::Limits, stream::DiscardPolicy::Old)
    );
    assert_eq!((info.max_age, info.max_bytes, info.num_replicas), (Duration::from_secs(3600), 64 * 1024 * 1024, 1));
    let config = consumer_info(&js).await.config;
    assert_eq!((config.ack_policy, config.deliver_policy), (consumer::AckPolicy::Explicit, consumer::DeliverPolicy::New));
    assert_eq!((config.ack_wait, config.max_ack_pending, config.max_deliver), (DEFAULTS.ack_wait, 5000, -1));
    assert_eq!((config.durable_name.as_deref(), config.filter_subject.as_str()), (Some("ws_fanout"), ""));
}

#[tokio::test]
async fn an_existing_consumer_is_used_as_it_is() {
    let (server, publisher, js) = world().await;
    let config = consumer::pull::Config {
        durable_name: Some("ws_fanout".to_owned()),
        ack_wait: Duration::from_secs(77),
        max_ack_pending: 123,
        max_batch: 10,
        max_expires: Duration::from_secs(4),
        ..Default::default()
    };
    js.create_stream(stream_config(&["wa.>"])).await.unwrap().create_consumer(config).await.unwrap();
    let before = consumer_info(&js).await.config;

    let source = source(&server.section()).await;
    let limits = source.limits();
    assert_eq!((limits.ack_wait, limits.max_ack_pending), (Duration::from_secs(77), 123));
    let mut published = Vec::new();
    for _ in 0..50 {
        published.push(put(&publisher, SUBJECT).await);
    }
    let events = pull(&source, 50).await;
    assert_eq!(seqs(&events), published);
    ack(&source, &events).await;
    assert_eq!(consumer_info(&js).await.config, before);
}

#[tokio::test]
async fn an_existing_stream_is_used_as_it_is_and_foreign_subjects_are_left_out() {
    let (server, publisher, js) = world().await;
    let config =
        stream::Config { max_messages: 1000, storage: stream::StorageType::Memory, ..stream_config(&["wa.>", "orders.>"]) };
    js.create_stream(config).await.unwrap();
    let before = js.get_stream("wa_stream").await.unwrap().cached_info().config.clone();
    put(&publisher, SUBJECT).await;

    let source = source(&server.section()).await;
    assert_eq!(js.get_stream("wa_stream").await.unwrap().cached_info().config, before);
    put(&publisher, "orders.new").await;
    let seq = put(&publisher, SUBJECT).await;
    // Neither what was there before the consumer, nor what is not ours.
    assert_eq!(seqs(&pull(&source, 1).await), [seq]);
}

#[tokio::test]
async fn a_push_consumer_under_the_name_stops_the_start_and_is_left_alone() {
    let (server, _, js) = world().await;
    let push = consumer::push::Config {
        durable_name: Some("ws_fanout".to_owned()),
        deliver_subject: "deliver.here".to_owned(),
        deliver_group: Some("ws_fanout".to_owned()),
        ..Default::default()
    };
    js.create_stream(stream_config(&["wa.>"])).await.unwrap().create_consumer(push).await.unwrap();
    let mut nats = server.section();
    for retry in [false, true] {
        nats.retry_on_failed_connect = retry;
        let error = refused(&nats).await;
        assert!(matches!(&error, NatsStartError::PushConsumer { consumer, .. } if consumer == "ws_fanout"), "{error:?}");
        assert!(error.to_string().contains("nats.consumer_name"), "{error}");
    }
    assert_eq!(consumer_info(&js).await.config.deliver_subject.as_deref(), Some("deliver.here"));
}

#[tokio::test]
async fn a_stream_that_would_take_anothers_subjects_is_refused() {
    let (server, _, js) = world().await;
    js.create_stream(stream::Config { name: "other".to_owned(), ..stream_config(&["wa.>"]) }).await.unwrap();
    let error = refused(&server.section()).await;
    assert!(matches!(&error, NatsStartError::Refused(step) if Chain(step).to_string().contains("overlap")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_may_make_the_stream_at_the_same_time() {
    let (server, publisher, _) = world().await;
    let pods: Vec<_> = (0..8)
        .map(|index| {
            let mut nats = server.section();
            // A rolling update may bring other limits with it.
            nats.stream_max_bytes += u64::from(index % 2 == 0);
            let defaults = daisi_ws_service::adapters::nats::ConsumerDefaults { max_ack_pending: 5000 - index, ..DEFAULTS };
            async move { NatsSource::connect(&nats, defaults, &tasks()).await.unwrap() }
        })
        .collect();
    let pods = futures_util::future::join_all(pods).await;
    let limits = pods[0].limits();
    assert!(pods.iter().all(|pod| pod.limits() == limits && pod.is_connected()));
    for pod in &pods[1..] {
        pod.close().await;
    }
    let seq = put(&publisher, SUBJECT).await;
    assert_eq!(seqs(&pull(&pods[0], 1).await), [seq]);
}

// === who may come in ===

#[tokio::test]
async fn user_and_password_open_the_door_from_the_section_or_the_address() {
    let server = NatsServer::start_with(Access::User("gateway", "s3cr3t@word")).await;
    assert!(source(&server.section()).await.is_connected());
    let in_address = section(&server.url().replace("nats://", "nats://gateway:s3cr3t%40word@"));
    assert!(source(&in_address).await.is_connected());

    let mut wrong = server.section();
    wrong.password = Secret::new("hunter2");
    let wrong_in_address = section(&server.url().replace("nats://", "nats://gateway:hunter2@"));
    for nats in [&wrong, &wrong_in_address, &section(&server.url())] {
        let error = refused(nats).await;
        let text = format!("{} {error:?}", Chain(&error));
        assert!(text.contains("authorization") && !text.contains("hunter2") && !text.contains("gateway"), "{text}");
    }
}

#[tokio::test]
async fn a_token_opens_the_door() {
    let server = NatsServer::start_with(Access::Token("t0k3n")).await;
    assert!(source(&server.section()).await.is_connected());
    assert!(source(&section(&server.url().replace("nats://", "nats://t0k3n@"))).await.is_connected());
    let mut wrong = server.section();
    wrong.token = Secret::new("hunter2");
    let error = refused(&wrong).await;
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn credentials_that_are_not_there_are_an_error_at_the_start() {
    let mut nats = section("nats://127.0.0.1:1");
    nats.retry_on_failed_connect = true;
    nats.credentials_file = Some("/nowhere/gateway.creds".into());
    assert!(matches!(refused(&nats).await, NatsStartError::Credentials { .. }));
}

#[tokio::test]
async fn tls_is_checked_against_the_ca_file() {
    let server = NatsServer::start_with(Access::Tls).await;
    assert!(source(&server.section()).await.is_connected());
    let mut missing = server.section();
    missing.ca_file = Some("/nowhere/ca.pem".into());
    assert!(matches!(refused(&missing).await, NatsStartError::CaFile { .. }));
    let mut other = server.section();
    other.ca_file = None;
    assert!(matches!(refused(&other).await, NatsStartError::Connect { .. }));
}

// === headers, publishing, throughput ===

#[tokio::test]
async fn headers_are_found_in_any_case_and_dropped_when_unfit() {
    let (server, publisher, _) = world().await;
    let source = source(&server.section()).await;
    let long = "x".repeat(257);
    let sets: [&[(&str, &str)]; 3] =
        [&[("x-request-id", "r1"), ("Traceparent", "t1")], &[("X-Request-ID", "two words")], &[("X-Request-ID", &long)]];
    for headers in sets {
        publisher.publish(&publication(SUBJECT, "{}"), headers).await.unwrap();
    }
    let events = pull(&source, 3).await;
    let seen: Vec<_> = events.iter().map(|e| (e.request_id.as_deref(), e.traceparent.as_deref())).collect();
    assert_eq!(seen, [(Some("r1"), Some("t1")), (None, None), (None, None)]);
}

#[tokio::test]
async fn publishing_says_what_is_wrong() {
    let (server, _, _) = world().await;
    let nats = server.section();
    let event = publication(SUBJECT, "{}");
    assert!(matches!(publish(&nats, &event, None).await, Err(PublishError::NoStream { .. })));
    let source = source(&nats).await;
    assert!(matches!(publish(&nats, &event, Some("a\r\nb")).await, Err(PublishError::RequestId)));
    publish(&nats, &event, Some("r7")).await.unwrap();
    assert_eq!(pull(&source, 1).await[0].request_id.as_deref(), Some("r7"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_events_come_in_portions_of_bounded_size() {
    let (server, publisher, _) = world().await;
    let source = source(&server.section()).await;
    let huge = bytes::Bytes::from(vec![b'x'; 900_000]);
    let mut published = Vec::new();
    for _ in 0..30 {
        published.push(store_anything(&publisher, SUBJECT, huge.clone(), &[]).await.unwrap());
    }
    let events = pull(&source, published.len()).await;
    assert_eq!(seqs(&events), published);
    assert!(events.iter().all(|event| event.payload == huge && event.delivery.count == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_events_are_pulled_and_settled_in_large_portions() {
    const COUNT: usize = 10_000;
    let (server, publisher, js) = world().await;
    let source = source(&server.section()).await;
    for _ in 0..COUNT {
        publisher.client().publish(SUBJECT, "{\"event_id\":\"1\"}".into()).await.unwrap();
    }
    publisher.client().flush().await.unwrap();
    until("all is stored", async || js.get_stream("wa_stream").await.unwrap().cached_info().state.messages == COUNT as u64).await;
    let since = Instant::now();
    let (mut taken, mut pulls) = (Vec::new(), 0);
    while taken.len() < COUNT {
        let events = tokio::time::timeout(PATIENCE, source.pull(256)).await.unwrap().unwrap();
        taken.extend(seqs(&events));
        ack(&source, &events).await;
        pulls += 1;
    }
    println!("{COUNT} events in {pulls} pulls and {:?}", since.elapsed());
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), COUNT);
    until("all is settled", async || consumer_info(&js).await.num_ack_pending == 0).await;
}
