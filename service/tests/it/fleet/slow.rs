//! G5, G6, G8, G9: slow is not stalled. Clients that read all the time, only slowly, and clients that take nothing; also when
//! they are told to go.

use std::time::Duration;

use daisi_ws_service::config::DropPolicy;

use tokio::time::Instant;

use crate::support::{
    client::{Client, Seen},
    fleet::{Fleet, user},
};

/// What a slow client reads in a second.
const MEGABYTE: usize = 1_000_000;
/// How long a socket may take no byte before it counts as taking none.
const STALL: Duration = Duration::from_secs(2);

/// A payload of so many bytes.
fn payload(bytes: usize) -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(bytes))
}

/// Anyone who takes so many events in a row, and nothing else, has lost nothing.
async fn got_all(client: &mut Client, published: &[u64]) {
    let mut seqs = client.expect_events(published.len()).await;
    // Two pods took them.
    seqs.sort_unstable();
    assert_eq!(seqs, published);
}

#[tokio::test(start_paused = true)]
async fn g6_a_client_that_takes_bytes_loses_nothing_of_a_burst_however_large_its_events_and_whoever_took_them() {
    for policy in [DropPolicy::DropOldest, DropPolicy::Block] {
        let fleet = Fleet::with(2, |config| config.app.websocket_backpressure_drop_policy = policy).await;
        let mut clients = Vec::new();
        for pod in [0, 1] {
            clients.push(fleet.connect_slow(pod, user("acme", "a1", &format!("u{pod}")), MEGABYTE).await.unwrap());
        }
        for (bytes, events) in [(1_000, 3_000), (60_000, 60), (700_000, 30), (4_000_000, 5)] {
            let published: Vec<u64> = (0..events).map(|_| fleet.publish("wa.acme.a1.chats", &payload(bytes))).collect();
            for client in &mut clients {
                got_all(client, &published).await;
            }
        }
        assert_eq!(fleet.total("dws_websocket_messages_dropped_total"), 0.0);
        assert_eq!(fleet.total("dws_connections_closed_total"), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn g6_one_message_may_take_a_slow_client_longer_than_the_write_time_out() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect_slow(0, user("acme", "a1", "sari"), 15_000).await.unwrap();
    let published = [fleet.publish("wa.acme.a1.chats", &payload(700_000)), fleet.publish("wa.acme.a1.chats", "{}")];
    got_all(&mut client, &published).await;
}

#[tokio::test(start_paused = true)]
async fn g9_a_burst_for_a_client_that_takes_nothing_is_bounded_at_once_and_cut_to_size_when_it_counts_as_stalled() {
    let fleet = Fleet::with(1, |config| {
        config.app.websocket_buffer_max_bytes = 50_000;
        config.app.websocket_burst_max_bytes = 200_000;
    })
    .await;
    let mut stuck = fleet.open(0, user("acme", "a1", "stuck"), 1024).await.unwrap();
    // It is being written, and goes no further.
    let mut published = vec![fleet.publish("wa.acme.a1.chats", &payload(5000))];
    fleet.all_settled().await;
    published.extend((0..100).map(|_| fleet.publish("wa.acme.a1.chats", &payload(5000))));
    fleet.all_settled().await;
    let session = &fleet.pods[0].pod.hub().sessions()[0];
    let waiting = session.mailbox().len();
    assert!((30..40).contains(&waiting), "{waiting}");
    tokio::time::sleep(STALL + Duration::from_millis(100)).await;
    let waiting = session.mailbox().len();
    assert!((5..=10).contains(&waiting), "{waiting}");
    // Nothing was lost without a word, and what is left is the newest.
    stuck.expect_ready().await;
    let dropped = fleet.total("dws_websocket_messages_dropped_total");
    let seqs = stuck.drain_seqs(Duration::from_secs(3)).await;
    assert_eq!(dropped, f64::from(u32::try_from(published.len() - seqs.len()).unwrap()));
    assert_eq!(seqs.last(), published.last());
}

/// As the gateway does it: drains, then ends all tasks.
async fn drain_and_end(fleet: &Fleet, pod: usize, within: Duration) -> Duration {
    let started = Instant::now();
    fleet.pods[pod].pod.drain(within).await;
    fleet.pods[pod].tasks.shutdown().hard.cancel();
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn g8_a_drain_lets_a_client_that_reads_have_all_that_waits_for_it_and_its_goodbye() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect_slow(0, user("acme", "a1", "sari"), MEGABYTE).await.unwrap();
    let published: Vec<u64> = (0..400).map(|_| fleet.publish("wa.acme.a1.chats", &payload(40_000))).collect();
    fleet.all_settled().await;
    let took = drain_and_end(&fleet, 0, Duration::from_secs(27)).await;
    got_all(&mut client, &published).await;
    assert_eq!(client.expect_close().await, Some(1001));
    // It reads for sixteen seconds, and is waited for no longer than that.
    assert!((Duration::from_secs(15)..Duration::from_secs(23)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn g3_a_client_that_loses_its_session_may_read_on_and_its_successor_does_not_wait_for_that() {
    let fleet = Fleet::start(2).await;
    let mut old = fleet.connect_slow(0, user("acme", "a1", "sari"), MEGABYTE).await.unwrap();
    let published: Vec<u64> = (0..100).map(|_| fleet.publish("wa.acme.a1.chats", &payload(60_000))).collect();
    fleet.all_settled().await;
    let started = Instant::now();
    let _new = fleet.connect(1, user("acme", "a1", "sari")).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    got_all(&mut old, &published).await;
    assert_eq!(old.expect("error").await["payload"]["code"], "SessionConflict");
    assert_eq!(old.expect_close().await, Some(4402));
}

#[tokio::test(start_paused = true)]
async fn g5_g8_a_drain_waits_for_nobody_who_takes_nothing_and_counts_what_it_cuts() {
    let fleet = Fleet::start(1).await;
    let _stuck = fleet.open(0, user("acme", "a1", "stuck"), 1024).await.unwrap();
    let mut healthy = fleet.connect(0, user("acme", "a1", "healthy")).await.unwrap();
    let published: Vec<u64> = (0..20).map(|_| fleet.publish("wa.acme.a1.chats", &payload(5000))).collect();
    got_all(&mut healthy, &published).await;
    let took = drain_and_end(&fleet, 0, Duration::from_secs(27)).await;
    assert_eq!(healthy.expect_close().await, Some(1001));
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_eq!(fleet.labelled("dws_websocket_messages_dropped_total", "cut"), 20.0);
}

#[tokio::test(start_paused = true)]
async fn g8_a_drain_ends_in_time_and_leaves_nothing_behind_though_a_client_would_read_for_longer() {
    let fleet = Fleet::start(1).await;
    let claims = user("acme", "a1", "sari");
    let mut client = fleet.connect_slow(0, claims.clone(), 50_000).await.unwrap();
    for _ in 0..400 {
        fleet.publish("wa.acme.a1.chats", &payload(40_000));
    }
    fleet.all_settled().await;
    let took = drain_and_end(&fleet, 0, Duration::from_secs(27)).await;
    assert!(took < Duration::from_secs(27), "{took:?}");
    let seen = client.drain(Duration::from_secs(1)).await;
    assert!(matches!(seen.last(), Some(Seen::Closed(None))));
    let cut = fleet.labelled("dws_websocket_messages_dropped_total", "cut");
    let events = u32::try_from(seen.len() - 1).unwrap();
    // Of the write that was cut, some may have come.
    assert!((f64::from(400 - events)..f64::from(408 - events)).contains(&cut), "{cut} of 400, {events} seen");
    let x = daisi_ws_domain::ids::PodId::parse("x").unwrap();
    let routes = daisi_ws_service::ports::Routes::lookup(&fleet.store.handle(x.clone()), &x, &[claims.base_route()]).await;
    assert!(routes.unwrap().pods[0].is_empty());
}
