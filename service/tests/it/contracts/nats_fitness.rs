//! Streams, consumers and users that others made: what can be lived with is told, what can't stops the start and says what to
//! change.

use std::time::Duration;

use async_nats::jetstream::{Context, consumer};
use daisi_ws_service::{
    adapters::nats::{NatsSource, NatsStartError, Publisher},
    config::{Nats, Secret},
    ports::EventSource as _,
    telemetry::Chain,
};

use super::nats_source::{SUBJECT, ack, pull, put, refused, seqs, source, stream_config, until, world};
use crate::support::nats::{Access, NatsServer};

fn config() -> consumer::pull::Config {
    consumer::pull::Config {
        durable_name: Some("ws_fanout".to_owned()),
        ack_policy: consumer::AckPolicy::Explicit,
        ..Default::default()
    }
}

/// A server with a consumer of an operator's.
async fn world_with(config: consumer::pull::Config) -> (NatsServer, Publisher, Context) {
    let (server, publisher, js) = world().await;
    js.create_stream(stream_config(&["wa.>", "orders.>"])).await.unwrap().create_consumer(config).await.unwrap();
    (server, publisher, js)
}

async fn unfit(config: consumer::pull::Config) -> String {
    let (server, ..) = world_with(config).await;
    match refused(&server.section()).await {
        error @ NatsStartError::Unfit { .. } => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_consumer_that_breaks_a_promise_stops_the_start_and_says_what_to_change() {
    use consumer::{AckPolicy, ReplayPolicy};
    let none = unfit(consumer::pull::Config { ack_policy: AckPolicy::None, ..config() }).await;
    assert!(none.contains("ack policy none") && none.contains("nats.consumer_name"), "{none}");
    let all = unfit(consumer::pull::Config { ack_policy: AckPolicy::All, ..config() }).await;
    assert!(all.contains("ack policy all"), "{all}");
    let headers = unfit(consumer::pull::Config { headers_only: true, ..config() }).await;
    assert!(headers.contains("headers_only"), "{headers}");
    let slow = unfit(consumer::pull::Config { replay_policy: ReplayPolicy::Original, ..config() }).await;
    assert!(slow.contains("replay policy original"), "{slow}");
    let foreign = unfit(consumer::pull::Config { filter_subject: "orders.>".to_owned(), ..config() }).await;
    assert!(foreign.contains("orders.>") && foreign.contains("nats.subject_prefix"), "{foreign}");
}

#[tokio::test]
async fn an_event_that_a_consumer_with_a_limit_delivers_no_more_is_told() {
    let limited = consumer::pull::Config { max_deliver: 2, ack_wait: Duration::from_secs(1), ..config() };
    let (server, publisher, _) = world_with(limited).await;
    let source = source(&server.section()).await;
    let seq = put(&publisher, SUBJECT).await;
    let first = pull(&source, 1).await.remove(0);
    let second = pull(&source, 1).await.remove(0);
    assert_eq!((first.delivery.is_last, second.delivery.is_last), (false, true));
    // Anyone who has it is gone.
    let mut missed = None;
    until("the pod knows", async || {
        let _ = tokio::time::timeout(Duration::from_millis(50), source.pull(10)).await;
        missed = missed.or(source.take_missed());
        missed.is_some()
    })
    .await;
    let missed = missed.unwrap();
    assert_eq!((missed.first_seq, missed.last_seq), (Some(seq), Some(seq)));
    let again = put(&publisher, SUBJECT).await;
    let events = pull(&source, 1).await;
    assert_eq!(seqs(&events), [again]);
    ack(&source, &events).await;
}

#[tokio::test]
async fn a_permission_that_is_missing_at_the_start_is_named() {
    for denied in ["$JS.API.CONSUMER.MSG.NEXT.>", "$JS.ACK.>", "$JS.API.STREAM.INFO.>"] {
        let server = NatsServer::start_with(Access::Denied(denied)).await;
        let error = refused(&server.section()).await;
        let named = denied.trim_end_matches(">");
        assert!(matches!(&error, NatsStartError::Denied(reason) if reason.contains(named)), "{denied}: {error:?}");
    }
}

#[tokio::test]
async fn a_permission_taken_away_under_way_makes_the_stream_unavailable_and_is_named() {
    let mut server = NatsServer::start_with(Access::Denied("nothing.at.all")).await;
    let source = source(&server.section()).await;
    for (denied, named) in
        [("$JS.API.CONSUMER.MSG.NEXT.>", "$JS.API.CONSUMER.MSG.NEXT.wa_stream.ws_fanout"), ("nothing.at.all", "")]
    {
        server.reload_with(Access::Denied(denied));
        until("the reason is the permission, or there is none", async || {
            let pulled = tokio::time::timeout(Duration::from_millis(100), source.pull(10)).await;
            if named.is_empty() {
                return source.is_connected();
            }
            !source.is_connected()
                && pulled.is_ok_and(|pulled| pulled.is_err_and(|error| Chain(&error).to_string().contains(named)))
                || !source.is_connected() && source.pull(1).await.is_err_and(|error| Chain(&error).to_string().contains(named))
        })
        .await;
    }
}

#[tokio::test]
async fn a_renewed_password_lets_a_pod_in_again() {
    let mut server = NatsServer::start_with(Access::User("gateway", "before")).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "before").unwrap();
    let nats = Nats { password: Secret::of_file(&path).unwrap(), ..server.section() };
    let source = source(&nats).await;
    server.stop();
    server.restart_with(Access::User("gateway", "after")).await;
    until("the reason is the password", async || {
        source.pull(1).await.is_err_and(|error| Chain(&error).to_string().contains("authorization"))
    })
    .await;
    std::fs::write(&path, "after").unwrap();
    until("it is connected", async || {
        let _ = tokio::time::timeout(Duration::from_millis(20), source.pull(10)).await;
        source.is_connected()
    })
    .await;
}

#[tokio::test]
async fn asking_whether_events_would_come_takes_none() {
    let (server, publisher, js) = world_with(config()).await;
    let seq = put(&publisher, SUBJECT).await;
    let sources: Vec<NatsSource> = vec![source(&server.section()).await, source(&server.section()).await];
    let info = js.get_stream("wa_stream").await.unwrap().consumer_info("ws_fanout").await.unwrap();
    assert_eq!((info.num_ack_pending, info.num_pending), (0, 1));
    let event = pull(&sources[0], 1).await.remove(0);
    assert_eq!((event.seq, event.delivery.count), (seq, 1));
}
