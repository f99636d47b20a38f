//! What a session lacks is read again from the stream, and comes before anything newer; a gap is told only of what the stream no
//! longer has.

use std::time::Duration;

use daisi_ws_service::config::{Config, DropPolicy};
use serde_json::Value;

use crate::support::{
    client::{Client, Seen},
    fleet::{Fleet, user},
    wait,
};

const CHATS: &str = "wa.acme.a1.chats";
const QUIET: Duration = Duration::from_secs(30);

fn kilobyte() -> String {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(1000))
}

/// All events that come until it is quiet, in the order in which they come; nothing else may come.
async fn events(client: &mut Client) -> Vec<(u64, bool)> {
    let seen = client.drain(QUIET).await;
    let event = |seen: Seen| match seen {
        Seen::Frame(frame, _) if frame["type"] == "event" => (frame["seq"].as_u64().unwrap(), frame["replayed"] == true),
        other => panic!("{other:?}"),
    };
    seen.into_iter().map(event).collect()
}

fn seqs(events: &[(u64, bool)]) -> Vec<u64> {
    events.iter().map(|(seq, _)| *seq).collect()
}

/// A pod that has told how far all is settled, and been confirmed.
async fn known(fleet: &Fleet) {
    wait::until("a floor is known", || async { fleet.pods.iter().all(|pod| pod.pod.hub().floor().is_some()) }).await;
}

async fn fleet(pods: usize, tweak: impl FnOnce(&mut Config)) -> Fleet {
    let fleet = Fleet::with(pods, tweak).await;
    known(&fleet).await;
    fleet
}

#[tokio::test(start_paused = true)]
async fn g10_a_thawed_pod_brings_its_sessions_all_they_missed() {
    let fleet = fleet(3, |_| {}).await;
    let mut clients = Vec::new();
    for pod in 0..3 {
        clients.push(fleet.connect(pod, user("acme", "a1", &format!("user-{pod}"))).await.unwrap());
    }
    let mut published = vec![fleet.publish(CHATS, "{}")];
    fleet.all_settled().await;
    fleet.freeze(1, true);
    for _ in 0..300 {
        published.push(fleet.publish(CHATS, "{}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fleet.all_settled().await;
    fleet.freeze(1, false);
    let newer = fleet.publish(CHATS, "{}");
    published.push(newer);
    for client in &mut clients {
        let events = events(client).await;
        let mut sorted = seqs(&events);
        sorted.sort_unstable();
        assert_eq!(sorted, published);
    }
    assert_eq!(fleet.total("dws_gaps_announced_total"), 0.0);
    assert!(fleet.labelled("dws_gaps_mended_total", "pod_resumed") >= 1.0);
}

#[tokio::test(start_paused = true)]
async fn g10_what_was_given_up_for_a_pod_out_of_reach_is_read_again_before_anything_newer() {
    let fleet = fleet(2, |config| config.app.forward_max_deliveries = 4).await;
    // All events go through pod 0, and all are for pod 1.
    fleet.stream.cut(&fleet.pods[1].id, true);
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    fleet.cut_link(0, 1, true);
    let mut published: Vec<u64> = (0..10).map(|_| fleet.publish(CHATS, "{}")).collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    fleet.all_settled().await;
    fleet.stream.cut(&fleet.pods[1].id, false);
    fleet.cut_link(0, 1, false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    published.push(fleet.publish(CHATS, "{}"));
    let events = events(&mut far).await;
    assert_eq!(seqs(&events), published);
    assert_eq!(events.iter().filter(|(_, replayed)| *replayed).count(), 10);
}

#[tokio::test(start_paused = true)]
async fn g10_what_the_consumer_passed_over_is_read_again_by_every_pod() {
    let fleet = fleet(2, |_| {}).await;
    let mut clients = Vec::new();
    for pod in 0..2 {
        clients.push(fleet.connect(pod, user("acme", "a1", &format!("user-{pod}"))).await.unwrap());
    }
    for pod in &fleet.pods {
        fleet.stream.cut(&pod.id, true);
    }
    let mut published = vec![fleet.publish(CHATS, "{}"), fleet.publish(CHATS, "{}")];
    fleet.stream.make_consumer_anew();
    for pod in &fleet.pods {
        fleet.stream.cut(&pod.id, false);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    published.push(fleet.publish(CHATS, "{}"));
    for client in &mut clients {
        assert_eq!(seqs(&events(client).await), published);
    }
}

async fn slow_client_gets_all(policy: DropPolicy) {
    let fleet = fleet(1, |config| {
        config.app.websocket_message_buffer_size = 10;
        config.app.websocket_backpressure_drop_policy = policy;
    })
    .await;
    let mut slow = fleet.connect_slow(0, user("acme", "a1", "slow"), 2000).await.unwrap();
    let mut published = Vec::new();
    let memory = fleet.pods[0].pod.hub().memory();
    let mut most = 0;
    for n in 0..12_000 {
        published.push(fleet.publish(CHATS, &format!(r#"{{"n":{n}}}"#)));
        tokio::time::sleep(Duration::from_millis(5)).await;
        most = most.max(memory.used());
    }
    assert!(most < 600_000, "{most} bytes held for one slow client");
    let mut got = Vec::new();
    while got.len() < published.len() {
        match slow.next().await {
            Seen::Frame(frame, _) if frame["type"] == "event" => got.push(frame["seq"].as_u64().unwrap()),
            other => panic!("{other:?} after {} events", got.len()),
        }
    }
    assert_eq!(got, published);
    let newer = fleet.publish(CHATS, "{}");
    assert_eq!(slow.expect_event().await.seq, newer);
    assert_eq!(fleet.total("dws_websocket_messages_dropped_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn g6_g10_a_client_that_reads_slower_than_events_come_gets_all_of_them_in_order_and_costs_little_memory() {
    slow_client_gets_all(DropPolicy::DropOldest).await;
}

#[tokio::test(start_paused = true)]
async fn g6_g10_with_policy_block_a_client_that_reads_is_not_closed_for_being_slow() {
    slow_client_gets_all(DropPolicy::Block).await;
}

#[tokio::test(start_paused = true)]
async fn g10_a_client_that_stood_still_for_a_while_gets_all_of_it_once_it_reads_on() {
    let fleet = fleet(2, |config| config.app.websocket_message_buffer_size = 10).await;
    let mut slow = fleet.open(0, user("acme", "a1", "slow"), 8 * 1024).await.unwrap();
    let mut published = Vec::new();
    for _ in 0..200 {
        published.push(fleet.publish(CHATS, &kilobyte()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slow.expect_ready().await;
    let mut slow = slow.eager();
    assert_eq!(seqs(&events(&mut slow).await), published);
    assert_eq!(fleet.labelled("dws_gaps_mended_total", "slow_client"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn g5_of_what_the_stream_no_longer_has_a_gap_tells_the_exact_number() {
    let options = daisi_ws_service::adapters::memory::stream::StreamOptions { capacity: 50, ..Default::default() };
    let fleet = Fleet::on(options, 1, |config| config.app.websocket_message_buffer_size = 10).await;
    known(&fleet).await;
    let mut slow = fleet.open(0, user("acme", "a1", "slow"), 8 * 1024).await.unwrap();
    let mut published = Vec::new();
    for _ in 0..200 {
        published.push(fleet.publish(CHATS, &kilobyte()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slow.expect_ready().await;
    let mut expected = published.iter().copied();
    let mut lost = 0;
    for seen in slow.drain(QUIET).await {
        let Seen::Frame(frame, _) = seen else { panic!("{seen:?}") };
        if frame["type"] == "gap" {
            let gap = &frame["payload"];
            let dropped = gap["dropped"].as_u64().unwrap();
            assert_eq!(gap["first_seq"].as_u64(), expected.next());
            assert_eq!(gap["last_seq"].as_u64(), (1..dropped).filter_map(|_| expected.next()).last());
            lost += dropped;
        } else {
            assert_eq!(frame["seq"].as_u64(), expected.next());
        }
    }
    assert_eq!(expected.next(), None);
    assert!(lost > 100, "{lost}");
    assert_eq!(fleet.total("dws_websocket_messages_dropped_total"), f64::from(u32::try_from(lost).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn g5_a_gap_is_told_where_the_stream_does_not_answer_while_newer_events_come_by_a_peer() {
    let fleet = fleet(2, |config| config.app.forward_max_deliveries = 4).await;
    fleet.stream.cut(&fleet.pods[1].id, true);
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    fleet.cut_link(0, 1, true);
    let given_up = fleet.publish(CHATS, "{}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    fleet.all_settled().await;
    fleet.cut_link(0, 1, false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let newer = fleet.publish(CHATS, "{}");
    let gap: Value = far.expect("gap").await;
    assert_eq!((gap["payload"]["first_seq"].as_u64(), gap["payload"]["dropped"].as_u64()), (Some(given_up), Some(1)));
    assert_eq!(far.expect_event().await.seq, newer);
}

#[tokio::test(start_paused = true)]
async fn g1_what_two_gaps_are_about_is_read_again_once() {
    let fleet = fleet(2, |config| config.app.forward_max_deliveries = 4).await;
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    // Given up by pod 0 while pod 1 is out of reach for it; and pod 1 is taken for dead besides.
    fleet.stream.cut(&fleet.pods[1].id, true);
    fleet.cut_link(0, 1, true);
    let mut published: Vec<u64> = (0..5).map(|_| fleet.publish(CHATS, "{}")).collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    fleet.all_settled().await;
    fleet.freeze(1, true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    published.extend((0..5).map(|_| fleet.publish(CHATS, "{}")));
    fleet.all_settled().await;
    fleet.freeze(1, false);
    fleet.cut_link(0, 1, false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let newer = fleet.publish(CHATS, "{}");
    let mut got = seqs(&events(&mut far).await);
    assert_eq!(got.pop(), Some(newer));
    got.sort_unstable();
    assert_eq!(got, published);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_is_about_others_is_not_told_to_a_session_that_lacks_nothing_of_it() {
    let fleet = fleet(2, |config| config.app.forward_max_deliveries = 4).await;
    fleet.stream.cut(&fleet.pods[1].id, true);
    let mut other = fleet.connect(1, user("acme", "a1", "other")).await.unwrap();
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    far.select_chat("c1").await;
    fleet.cut_link(0, 1, true);
    let given_up = fleet.publish("wa.acme.a1.messages.c1", "{}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    fleet.all_settled().await;
    fleet.stream.cut(&fleet.pods[1].id, false);
    fleet.cut_link(0, 1, false);
    assert_eq!(far.expect_event().await.seq, given_up);
    other.expect_silence(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn g10_what_is_missing_is_read_again_also_where_nothing_newer_comes() {
    let fleet = fleet(1, |config| config.app.websocket_message_buffer_size = 5).await;
    let mut slow = fleet.connect_slow(0, user("acme", "a1", "slow"), 20_000).await.unwrap();
    let published: Vec<u64> = (0..200).map(|_| fleet.publish(CHATS, &kilobyte())).collect();
    fleet.all_settled().await;
    assert_eq!(seqs(&events(&mut slow).await), published);
    let fleet = self::fleet(2, |_| {}).await;
    let mut frozen = fleet.connect(1, user("acme", "a1", "frozen")).await.unwrap();
    fleet.freeze(1, true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let published: Vec<u64> = (0..3).map(|_| fleet.publish(CHATS, "{}")).collect();
    fleet.all_settled().await;
    fleet.freeze(1, false);
    let started = tokio::time::Instant::now();
    assert_eq!(frozen.expect_events(3).await, published);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
