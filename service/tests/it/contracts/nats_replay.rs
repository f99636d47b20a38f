//! What reading JetStream again does beyond what all ways to read do: replicas that lag or lie, permissions that are missing,
//! streams that change meanwhile, many readers.

use std::time::Duration;

use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use daisi_ws_service::{
    adapters::nats::{NatsReplay, Publisher},
    ports::{ReadRequest, Replay as _, ReplayError, SpanRequest},
    telemetry::Chain,
};
use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::{
    nats_source::{put, until},
    replay::{SUBJECT, chats, look, patient_read, patient_read_all, seqs, span, stream_config, whole},
};
use crate::support::{
    nats::{Access, NatsServer, section},
    replica::{self, Replica, Said},
};

/// A server with a stream, whoever publishes there, and who reads it.
async fn world(access: Access, allow_direct: bool) -> (NatsServer, Publisher, Context, NatsReplay) {
    let server = NatsServer::start_with(access).await;
    let publisher = Publisher::connect(&server.section()).await.unwrap();
    let js = jetstream::new(publisher.client().clone());
    js.create_stream(stream_config(allow_direct)).await.unwrap();
    let replay = NatsReplay::connect(&server.section()).await.unwrap();
    (server, publisher, js, replay)
}

async fn fill(publisher: &Publisher, count: u64) -> Vec<u64> {
    let mut published = Vec::new();
    for _ in 0..count {
        published.push(put(publisher, SUBJECT).await);
    }
    published
}

/// Reads a stream of 10 events, three times by route and three times whole, whose direct gets are answered so; gives how often they were asked for.
async fn with_replica(answer: impl Fn(u64, u64) -> Vec<Said> + Send + Sync + 'static) -> u64 {
    let (server, publisher, _js, replay) = world(Access::Open, false).await;
    let published = fill(&publisher, 10).await;
    let replica = Replica::start(&server.url(), answer).await;
    for max_events in [1000, 9, 10] {
        let stretch = patient_read(&replay, &ReadRequest { max_events, ..whole(chats(), 0, 10) }).await;
        assert_eq!(seqs(&stretch.events), published[..max_events.min(10)]);
        assert_eq!(stretch.through, max_events.min(10) as u64);
        assert!(stretch.events.iter().all(|event| event.payload == "{}" && event.subject == SUBJECT), "{:?}", stretch.events);
    }
    for max_events in [1000, 9, 10] {
        let stretch = patient_read_all(&replay, &SpanRequest { max_events, ..span(0, 10) }).await;
        assert_eq!(seqs(&stretch.events), published[..max_events.min(10)]);
        assert_eq!(stretch.through, max_events.min(10) as u64);
        assert!(stretch.events.iter().all(|event| event.payload == "{}" && event.subject == SUBJECT), "{:?}", stretch.events);
    }
    replica.asked()
}

fn said(seq: u64, before: u64) -> Said {
    replica::event("wa_stream", SUBJECT, seq, before, b"{}")
}

/// What a replica says that has everything up to `last`.
fn prefix((after, batch): (u64, u64), last: u64, left: u64) -> Vec<Said> {
    let last = last.min(after + batch);
    let mut answer: Vec<Said> = (after + 1..=last).map(|seq| said(seq, if seq == after + 1 { 0 } else { seq - 1 })).collect();
    answer.push(if answer.is_empty() { replica::nothing() } else { replica::end(left) });
    answer
}

#[tokio::test]
async fn a_replica_that_lags_makes_no_hole_and_is_not_asked_for_what_it_lacks() {
    for (last, left) in [(0, 0), (1, 0), (4, 0), (4, 9), (9, 0), (10, 0)] {
        let asked = with_replica(move |after, batch| prefix((after, batch), last, left)).await;
        // A busy machine may lose one, and a read that is asked for again asks again.
        assert!((1..=24).contains(&asked), "asked {asked} times with {last}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_as_it_should_be_makes_no_hole_and_nothing_false_is_read() {
    let forged = |subject: &str| replica::event("wa_stream", subject, 2, 0, b"forged");
    let from_elsewhere = replica::event("mirror", SUBJECT, 5, 0, b"forged");
    let answers: Vec<Vec<Said>> = vec![
        // One was lost on its way.
        vec![said(2, 0), said(4, 3), replica::end(0)],
        // It begins later.
        vec![from_elsewhere, replica::end(0)],
        // It goes back.
        vec![said(2, 0), said(2, 2), replica::end(0)],
        vec![said(1, 0), replica::end(0)],
        // It is another route's.
        vec![forged("wa.other.a1.chats"), replica::end(0)],
        // A publisher has written what looks like the end.
        vec![said(2, 0), replica::end(0), said(3, 2)],
        // It is nothing that was ever heard of.
        vec![("NATS/1.0\r\n\r\n".to_owned(), b"{}".to_vec())],
        vec![("NATS/1.0 999 Busy\r\n\r\n".to_owned(), Vec::new())],
        vec![("NATS/1.0 503\r\n\r\n".to_owned(), Vec::new())],
        vec![("NATS/1.0\r\nNats-Stream: wa_stream\r\nNats-Sequence: x\r\n\r\n".to_owned(), Vec::new())],
        // There is more of it than was asked for.
        (2..300).map(|seq| said(seq, if seq == 2 { 0 } else { seq - 1 })).collect(),
    ];
    for answer in answers {
        let shown = format!("{:?}", answer.first());
        let asked =
            with_replica(move |after, batch| if after == 1 { answer.clone() } else { prefix((after, batch), 10, 0) }).await;
        assert!(asked >= 1, "{shown}");
    }
}

#[tokio::test]
async fn a_replica_that_says_nothing_costs_one_read_some_time() {
    for begins in [false, true] {
        let asked = with_replica(move |after, _| if begins { vec![said(after + 1, 0)] } else { Vec::new() }).await;
        assert_eq!(asked, 1);
    }
}

#[tokio::test]
async fn many_events_are_read_in_bulk_where_the_server_knows_how() {
    let (_server, publisher, js, replay) = world(Access::Open, true).await;
    fill(&publisher, 130).await;
    let spy = publisher.client();
    let mut asked = Vec::new();
    for subject in ["$JS.API.DIRECT.GET.wa_stream", "$JS.API.STREAM.MSG.GET.wa_stream"] {
        asked.push(spy.subscribe(subject).await.unwrap());
    }
    // The server takes what comes on a connection in order, and so listens once it has answered.
    js.get_stream("wa_stream").await.unwrap();
    let stretch = patient_read(&replay, &whole(chats(), 0, 130)).await;
    assert_eq!((seqs(&stretch.events), stretch.through), ((1..=130).collect(), 130));
    js.get_stream("wa_stream").await.unwrap();
    let mut counts = Vec::new();
    for mut subscription in asked {
        let mut count = 0;
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(100), subscription.next()).await {
            count += 1;
        }
        counts.push(count);
    }
    let knows_batches = !spy.server_info().version.starts_with("2.10.");
    assert_eq!(counts, if knows_batches { [3, 1] } else { [1, 130] });
}

#[tokio::test]
async fn all_events_are_read_in_large_batches_where_the_server_knows_how() {
    let (_server, publisher, js, replay) = world(Access::Open, true).await;
    fill(&publisher, 130).await;
    let spy = publisher.client();
    let mut asked = spy.subscribe("$JS.API.DIRECT.GET.wa_stream").await.unwrap();
    js.get_stream("wa_stream").await.unwrap();
    let stretch = patient_read_all(&replay, &span(0, 130)).await;
    assert_eq!((seqs(&stretch.events), stretch.through), ((1..=130).collect(), 130));
    js.get_stream("wa_stream").await.unwrap();
    let mut count = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(100), asked.next()).await {
        count += 1;
    }
    assert_eq!(count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_reads_all_have_their_answer() {
    let (_server, publisher, _js, replay) = world(Access::Open, true).await;
    fill(&publisher, 3).await;
    put(&publisher, "wa.acme.a2.chats").await;
    let reads = stream::iter(0..10_000_u64).map(|number| {
        let replay = &replay;
        async move {
            let after = number % 4;
            let stretch = patient_read(replay, &whole(chats(), after, 4)).await;
            assert_eq!((seqs(&stretch.events), stretch.through), ((after + 1..=3).collect(), 4));
        }
    });
    let answered = reads.buffer_unordered(64).count().await;
    assert_eq!(answered, 10_000);
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, ReplayError>) -> String {
    match outcome {
        Err(error @ ReplayError::Refused(_)) => Chain(&error).to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_permission_is_named_and_no_answer_waited_for() {
    for (denied, reads) in [("$JS.API.STREAM.MSG.GET.wa_stream", false), ("$JS.API.STREAM.INFO.wa_stream", true)] {
        let (_server, publisher, _js, replay) = world(Access::Denied(denied), true).await;
        put(&publisher, SUBJECT).await;
        for _ in 0..2 {
            let (bounds, read) = (replay.bounds().await, replay.read(&whole(chats(), 0, 1)).await);
            let why = if reads { refusal(bounds) } else { refusal(read.clone()) };
            assert!(why.contains(denied) && why.contains("allow it to publish"), "{why}");
            assert_eq!(read.is_ok(), reads);
        }
    }
}

#[tokio::test]
async fn who_may_not_hear_answers_is_told_so_each_time() {
    let (_server, replay) = {
        let server = NatsServer::start_with(Access::Deaf).await;
        let replay = NatsReplay::connect(&server.section()).await.unwrap();
        (server, replay)
    };
    for _ in 0..3 {
        let why = refusal(replay.bounds().await);
        assert!(why.contains("_INBOX.>"), "{why}");
    }
}

#[tokio::test]
async fn without_a_permission_for_direct_gets_everything_comes_from_the_leader() {
    let (_server, publisher, _js, replay) = world(Access::Denied("$JS.API.DIRECT.GET.wa_stream"), true).await;
    fill(&publisher, 20).await;
    let stretch = patient_read(&replay, &whole(chats(), 0, 20)).await;
    assert_eq!((seqs(&stretch.events), stretch.through), ((1..=20).collect(), 20));
}

#[tokio::test]
async fn events_that_were_deleted_or_purged_are_in_no_read() {
    let (_server, publisher, js, replay) = world(Access::Open, true).await;
    fill(&publisher, 20).await;
    let stream = js.get_stream("wa_stream").await.unwrap();
    for seq in [1, 7, 8, 20] {
        stream.delete_message(seq).await.unwrap();
    }
    let left = |from: u64| (from..20).filter(|seq| ![1, 7, 8].contains(seq)).collect::<Vec<_>>();
    let stretch = patient_read(&replay, &whole(chats(), 0, 20)).await;
    assert_eq!((seqs(&stretch.events), stretch.through), (left(1), 20));
    let all = patient_read_all(&replay, &span(0, 20)).await;
    assert_eq!((all.events, all.through), (stretch.events, 20));
    stream.purge().sequence(6).await.unwrap();
    let bounds = look(&replay).await;
    assert_eq!((bounds.first, bounds.last), (6, 20));
    assert_eq!(seqs(&patient_read(&replay, &whole(chats(), 2, 20)).await.events), left(6));
    stream.purge().await.unwrap();
    let bounds = look(&replay).await;
    assert_eq!((bounds.first, bounds.last, bounds.window), (21, 20, None));
}

#[tokio::test]
async fn a_stream_that_is_gone_is_refused_and_one_made_anew_is_another() {
    let (_server, publisher, js, replay) = world(Access::Open, true).await;
    fill(&publisher, 9).await;
    let before = look(&replay).await;
    js.delete_stream("wa_stream").await.unwrap();
    refusal(replay.bounds().await);
    refusal(replay.read(&whole(chats(), 3, 9)).await);
    js.create_stream(stream_config(true)).await.unwrap();
    fill(&publisher, 5).await;
    let bounds = look(&replay).await;
    assert!(bounds.stream != before.stream && (bounds.first, bounds.last) == (1, 5), "{bounds:?}");
    let stretch = patient_read(&replay, &whole(chats(), 3, 9)).await;
    assert_eq!((seqs(&stretch.events), stretch.through), (vec![4, 5], 9));
}

#[tokio::test]
async fn an_event_as_large_as_the_server_takes_is_read_whole() {
    for allow_direct in [true, false] {
        let (_server, publisher, _js, replay) = world(Access::Open, allow_direct).await;
        let large = Bytes::from(vec![b'"'; 1_000_000]);
        for _ in 0..3 {
            crate::support::nats::store_anything(&publisher, SUBJECT, large.clone(), &[]).await.unwrap();
        }
        let few = ReadRequest { max_bytes: 1000, ..whole(chats(), 0, 3) };
        assert_eq!(seqs(&patient_read(&replay, &few).await.events), [1]);
        let stretch = patient_read(&replay, &whole(chats(), 0, 3)).await;
        assert!(stretch.events.len() == 3 && stretch.events.iter().all(|event| event.payload == large));
    }
}

#[tokio::test]
async fn a_frozen_server_is_an_error_within_seconds() {
    let (server, publisher, _js, replay) = world(Access::Open, true).await;
    fill(&publisher, 2).await;
    assert_eq!(look(&replay).await.last, 2);
    server.freeze();
    // It takes a moment to stop.
    until("it is frozen", async || replay.bounds().await.is_err()).await;
    let since = Instant::now();
    let request = whole(chats(), 0, 2);
    let (read, first, second) = tokio::join!(replay.read(&request), replay.bounds(), replay.bounds());
    server.thaw();
    assert!(matches!(read, Err(ReplayError::Unreachable(_))), "{read:?}");
    for looked in [first, second] {
        assert!(matches!(looked, Err(ReplayError::Unreachable(_))), "{looked:?}");
    }
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    until("it answers again", async || replay.bounds().await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_ends_no_start() {
    let mut server = NatsServer::start().await;
    server.kill();
    let since = Instant::now();
    let replay = NatsReplay::connect(&section(&server.url())).await.unwrap();
    assert!(matches!(replay.bounds().await, Err(ReplayError::Unreachable(_))));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    server.restart().await;
    let publisher = Publisher::connect(&server.section()).await.unwrap();
    jetstream::new(publisher.client().clone()).create_stream(stream_config(true)).await.unwrap();
    until("it is connected", async || replay.bounds().await.is_ok()).await;
}
