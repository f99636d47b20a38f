//! G5, G6, G9: slow is not stalled. Clients that read all the time, only slowly, and clients that take nothing.

use std::time::Duration;

use daisi_ws_service::config::DropPolicy;

use crate::support::{
    client::Client,
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

/// Whoever takes so many events in a row, and nothing else, has lost nothing.
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
