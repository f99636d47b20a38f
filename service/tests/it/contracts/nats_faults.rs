//! What JetStream as an event source survives: deletions, crashes, freezes, and pods that do not pull.

use std::time::Duration;

use async_nats::jetstream::consumer;
use daisi_ws_domain::gap::{Gap, GapCause};
use daisi_ws_service::{
    adapters::nats::{ConsumerDefaults, NatsSource, NatsStartError, publish},
    config::Nats,
    ports::{EventSource as _, RawEvent},
    telemetry::Chain,
};
use tokio::time::Instant;

use super::nats_source::{SUBJECT, ack, consumer_info, pull, put, refused, seqs, source, stream_config, until, world};
use crate::support::nats::{DEFAULTS, NatsServer, publication, tasks};

#[tokio::test]
async fn a_deleted_consumer_is_made_anew() {
    let (server, publisher, js) = world().await;
    let source = source(&server.section()).await;
    let seq = put(&publisher, SUBJECT).await;
    let events = pull(&source, 1).await;
    assert_eq!(seqs(&events), [seq]);
    ack(&source, &events).await;

    js.delete_consumer_from_stream("ws_fanout", "wa_stream").await.unwrap();
    until("the consumer is there again", async || {
        let _ = tokio::time::timeout(Duration::from_millis(50), source.pull(10)).await;
        js.get_stream("wa_stream").await.unwrap().consumer_info("ws_fanout").await.is_ok()
    })
    .await;
    let again = put(&publisher, SUBJECT).await;
    let events = pull(&source, 1).await;
    assert_eq!((seqs(&events), source.is_connected()), (vec![again], true));
}

#[tokio::test]
async fn a_consumer_deleted_under_way_goes_on_where_it_stood() {
    let (server, publisher, js) = world().await;
    let source = source(&server.section()).await;
    let mut published = Vec::new();
    for _ in 0..10 {
        published.push(put(&publisher, SUBJECT).await);
    }
    let events = pull(&source, 10).await;
    ack(&source, &events[..4]).await;
    until("the floor is known", async || {
        source.lag().await.is_ok_and(|lag| lag.settled.is_some_and(|settled| settled.seq == published[3]))
    })
    .await;
    js.delete_consumer_from_stream("ws_fanout", "wa_stream").await.unwrap();
    for _ in 0..10 {
        published.push(put(&publisher, SUBJECT).await);
    }
    assert_eq!(seqs(&pull(&source, 16).await), published[4..]);
    assert!(source.lag().await.is_ok() && source.take_missed().is_none());
}

#[tokio::test]
async fn a_consumer_that_somebody_else_makes_anew_is_noticed_as_a_gap() {
    let (server, publisher, js) = world().await;
    let source = source(&server.section()).await;
    assert!(source.lag().await.unwrap().settled.is_some());
    let (first, last) = (put(&publisher, SUBJECT).await, put(&publisher, SUBJECT).await);
    let config = consumer::pull::Config {
        durable_name: Some("ws_fanout".to_owned()),
        deliver_policy: consumer::DeliverPolicy::New,
        ack_policy: consumer::AckPolicy::Explicit,
        ..Default::default()
    };
    // The pod makes it anew as well, as soon as it is gone: anyone who comes first.
    until("somebody else was faster than the pod", async || {
        js.delete_consumer_from_stream("ws_fanout", "wa_stream").await.unwrap();
        js.create_consumer_strict_on_stream(config.clone(), "wa_stream").await.is_ok()
    })
    .await;
    let mut missed = None;
    until("the pod knows", async || {
        let _ = source.lag().await;
        missed = missed.or(source.take_missed());
        missed.is_some()
    })
    .await;
    let missed = missed.unwrap();
    assert_eq!((missed.dropped, missed.first_seq, missed.last_seq), (None, Some(first), Some(last)));
    assert_eq!(source.take_missed(), None);
}

#[tokio::test]
async fn a_deleted_stream_is_made_anew_and_has_another_identity() {
    let (server, publisher, js) = world().await;
    let source = source(&server.section()).await;
    put(&publisher, SUBJECT).await;
    let first = pull(&source, 1).await.remove(0);
    js.delete_stream("wa_stream").await.unwrap();
    until("the stream is there again", async || {
        let _ = tokio::time::timeout(Duration::from_millis(50), source.pull(10)).await;
        match js.get_stream("wa_stream").await {
            Ok(stream) => stream.consumer_info("ws_fanout").await.is_ok(),
            Err(_) => false,
        }
    })
    .await;
    put(&publisher, SUBJECT).await;
    let second = pull(&source, 1).await.remove(0);
    assert_eq!((first.seq, second.seq), (1, 1));
    assert_ne!(first.stream, second.stream);
    assert_eq!(source.take_missed(), Some(Gap::unknown(GapCause::GivenUp)));
}

#[tokio::test]
async fn what_nobody_pulls_goes_to_a_pod_that_does() {
    let (server, publisher, js) = world().await;
    let mut defaults = DEFAULTS;
    defaults.ack_wait = Duration::from_secs(4);
    let idle = NatsSource::connect(&server.section(), defaults, &tasks()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), idle.pull(10)).await.is_err());
    // Its request is out, and it pulls no more.
    let seq = put(&publisher, SUBJECT).await;
    until("the idle pod has the event", async || consumer_info(&js).await.num_ack_pending == 1).await;
    let since = Instant::now();
    let busy = source(&server.section()).await;
    let event = pull(&busy, 1).await.remove(0);
    assert_eq!((event.seq, event.delivery.count), (seq, 2));
    assert!(since.elapsed() < defaults.ack_wait * 9 / 10, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_pod_that_stands_still_is_handed_an_event_once() {
    let (server, publisher, js) = world().await;
    let mut defaults = DEFAULTS;
    defaults.ack_wait = Duration::from_secs(4);
    let frozen = FrozenPod::start(server.section(), defaults).await;
    let since = Instant::now();
    let seq = put(&publisher, SUBJECT).await;
    until("the frozen pod has been sent the event", async || consumer_info(&js).await.num_ack_pending == 1).await;
    // The ledger of the server: who still has a request out when the event comes back would be sent it again.
    until("the frozen pod's request is over", async || consumer_info(&js).await.num_waiting == 0).await;
    assert!(since.elapsed() < defaults.ack_wait, "{:?}", since.elapsed());

    let well = NatsSource::connect(&server.section(), defaults, &tasks()).await.unwrap();
    let event = pull(&well, 1).await.remove(0);
    assert_eq!((event.seq, event.delivery.count), (seq, 2));
    assert!(frozen.thaw().is_none());
}

#[tokio::test]
async fn an_event_that_came_while_a_pod_stood_still_has_been_there_since() {
    let (server, publisher, js) = world().await;
    let mut defaults = DEFAULTS;
    defaults.ack_wait = Duration::from_secs(10);
    let frozen = FrozenPod::start(server.section(), defaults).await;
    let seq = put(&publisher, SUBJECT).await;
    until("the frozen pod has been sent the event", async || consumer_info(&js).await.num_ack_pending == 1).await;
    let sent = Instant::now();
    // Longer than a pod that works is busy with anything.
    tokio::time::sleep_until(sent + Duration::from_secs(1)).await;
    let event = frozen.thaw().unwrap();
    assert!(event.seq == seq && event.delivery.received_at <= sent, "{:?} later", event.delivery.received_at - sent);
}

/// A pod that has asked for events and whose runtime stands still since, as a paused container does.
struct FrozenPod {
    thaw: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Option<RawEvent>>,
}

impl FrozenPod {
    async fn start(nats: Nats, defaults: ConsumerDefaults) -> Self {
        let (asked, has_asked) = tokio::sync::oneshot::channel();
        let (thaw, thawed) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let source = NatsSource::connect(&nats, defaults, &tasks()).await.unwrap();
                assert!(tokio::time::timeout(Duration::from_millis(200), source.pull(10)).await.is_err());
                asked.send(()).unwrap();
                // Blocks the runtime's only thread, which is the point.
                let _ = thawed.recv();
                let pulled = tokio::time::timeout(Duration::from_secs(1), source.pull(10)).await;
                pulled.ok()?.ok()?.into_iter().next()
            })
        });
        has_asked.await.unwrap();
        Self { thaw, thread }
    }

    /// What it takes then, if anything within a second.
    fn thaw(self) -> Option<RawEvent> {
        self.thaw.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_an_outage_within_seconds_and_resumes_without_loss() {
    let (server, publisher, js) = world().await;
    let source = source(&server.section()).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), source.pull(10)).await.is_err());

    server.freeze();
    let since = Instant::now();
    while source.pull(10).await.is_ok() {}
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert!(!source.is_connected());
    // Long enough for the client to give the connection up and try others, all of them accepted by a kernel and answered by
    // nobody.
    let until_given_up = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until_given_up {
        assert!(source.pull(10).await.is_err());
    }

    server.thaw();
    let since = Instant::now();
    until("it is connected", async || {
        let _ = tokio::time::timeout(Duration::from_millis(20), source.pull(10)).await;
        source.is_connected()
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    let mut published = Vec::new();
    for _ in 0..20 {
        published.push(put(&publisher, SUBJECT).await);
    }
    let events = pull(&source, 20).await;
    let mut taken = seqs(&events);
    taken.sort_unstable();
    assert_eq!(taken, published);
    ack(&source, &events).await;
    until("all is settled", async || consumer_info(&js).await.num_ack_pending == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_survive_crashes_of_the_server_under_load() {
    let (mut server, publisher, js) = world().await;
    let (a, b) = (source(&server.section()).await, source(&server.section()).await);
    let mut published = Vec::new();
    let mut taken = std::collections::BTreeSet::new();
    for round in 0..3 {
        for _ in 0..100 {
            published.push(put(&publisher, SUBJECT).await);
        }
        for pod in [&a, &b] {
            if let Ok(Ok(events)) = tokio::time::timeout(Duration::from_millis(200), pod.pull(40)).await {
                taken.extend(seqs(&events));
                ack(pod, &events).await;
            }
        }
        if round < 2 {
            server.kill();
            // What was fetched before is still good.
            while let Ok(events) = a.pull(1000).await {
                taken.extend(seqs(&events));
            }
            server.restart().await;
        }
    }
    until("every event has come", async || {
        for pod in [&a, &b] {
            if let Ok(Ok(events)) = tokio::time::timeout(Duration::from_millis(50), pod.pull(256)).await {
                taken.extend(seqs(&events));
                ack(pod, &events).await;
            }
        }
        published.iter().all(|seq| taken.contains(seq))
    })
    .await;
    until("all is settled", async || {
        for pod in [&a, &b] {
            if let Ok(Ok(events)) = tokio::time::timeout(Duration::from_millis(50), pod.pull(256)).await {
                ack(pod, &events).await;
            }
        }
        consumer_info(&js).await.num_ack_pending == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_the_start_fails_or_waits_as_configured() {
    let mut server = NatsServer::start().await;
    let mut nats = server.section();
    server.kill();
    let since = Instant::now();
    let error = refused(&nats).await;
    assert!(matches!(error, NatsStartError::Connect { .. }), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(5));

    nats.retry_on_failed_connect = true;
    let source = source(&nats).await;
    assert!(!source.is_connected());
    assert_eq!(source.limits().max_ack_pending, DEFAULTS.max_ack_pending);
    assert!(source.pull(1).await.is_err());
    server.restart().await;
    until("it is connected", async || source.is_connected()).await;
    let seq = publish(&nats, &publication(SUBJECT, "{}"), None).await.unwrap();
    assert_eq!(seqs(&pull(&source, 1).await), [seq]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_good_order_is_ridden_out() {
    let (mut server, publisher, _) = world().await;
    let source = source(&server.section()).await;
    for _ in 0..3 {
        let seq = put(&publisher, SUBJECT).await;
        let events = pull(&source, 1).await;
        assert_eq!(seqs(&events), [seq]);
        ack(&source, &events).await;
        server.stop();
        server.restart().await;
        let since = Instant::now();
        until("it is connected", async || {
            let _ = tokio::time::timeout(Duration::from_millis(20), source.pull(10)).await;
            source.is_connected()
        })
        .await;
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_has_passed_over_nothing() {
    let (mut server, publisher, js) = world().await;
    let source = source(&server.section()).await;
    for end in [NatsServer::stop, NatsServer::kill] {
        until("the consumer is known", async || source.lag().await.is_ok()).await;
        for _ in 0..5 {
            put(&publisher, SUBJECT).await;
        }
        let events = pull(&source, 5).await;
        ack(&source, &events).await;
        let last = events.iter().map(|event| event.seq).max();
        until("all is settled", async || Some(consumer_info(&js).await.ack_floor.stream_sequence) == last).await;
        end(&mut server);
        server.restart().await;
        until("the consumer is known again", async || {
            let _ = tokio::time::timeout(Duration::from_millis(20), source.pull(10)).await;
            source.is_connected() && source.lag().await.is_ok()
        })
        .await;
        assert_eq!(source.take_missed(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_consumer_found_later_keeps_the_pod_unready_and_waiting() {
    let (mut server, _, js) = world().await;
    let push = consumer::push::Config {
        durable_name: Some("ws_fanout".to_owned()),
        deliver_subject: "deliver.here".to_owned(),
        ..Default::default()
    };
    js.create_stream(stream_config(&["wa.>"])).await.unwrap().create_consumer(push).await.unwrap();
    server.kill();
    let mut nats = server.section();
    nats.retry_on_failed_connect = true;
    let source = source(&nats).await;
    server.restart().await;
    until("the reason is the push consumer", async || {
        source.pull(1).await.is_err_and(|error| Chain(&error).to_string().contains("push consumer"))
    })
    .await;
    assert!(!source.is_connected());

    js.delete_consumer_from_stream("ws_fanout", "wa_stream").await.unwrap();
    until("it is connected", async || source.is_connected()).await;
}
