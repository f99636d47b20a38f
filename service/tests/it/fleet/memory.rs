//! G6, G9: the memory of a pod has a budget, and the slowest sockets pay for what is past it.

use std::time::Duration;

use daisi_ws_domain::close::CloseReason;
use daisi_ws_service::{application::hub::memory::Memory, config::DropPolicy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    client::{Client, Seen},
    fleet::{Fleet, user, without_repair},
};

const BUDGET: usize = 16 << 20;
/// Sockets that read nothing.
const STUCK: usize = 100;
/// The pipe of one, which is full at once.
const PIPE: usize = 1024;

async fn fleet(policy: DropPolicy) -> Fleet {
    Fleet::with(1, |config| {
        config.app.memory_budget_bytes = BUDGET;
        without_repair(config);
        config.app.websocket_backpressure_drop_policy = policy;
        // They are stuck for as long as the test takes.
        config.app.write_timeout = Duration::from_secs(3600);
        config.app.pong_wait = Duration::from_secs(3600);
    })
    .await
}

fn memory(fleet: &Fleet) -> &Memory {
    fleet.pods[0].pod.hub().memory()
}

fn payload(bytes: usize) -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(bytes))
}

/// Opens sockets that read nothing, each with events of its own.
async fn stuck(fleet: &Fleet) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 0..STUCK {
        clients.push(fleet.open(0, user("acme", &format!("a{n}"), "stuck"), PIPE).await.unwrap());
    }
    clients
}

/// Publishes so many events of this size to each of the stuck, and one to all others each time, over some seconds. How much was
/// held at the most.
async fn publish(fleet: &Fleet, rounds: usize, bytes: usize) -> usize {
    let mut most = 0;
    for _ in 0..rounds {
        for n in 0..STUCK {
            fleet.publish(&format!("wa.acme.a{n}.chats"), &payload(bytes));
        }
        fleet.publish("wa.acme.fast.chats", "{}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        most = most.max(memory(fleet).used());
    }
    most
}

#[tokio::test(start_paused = true)]
async fn g5_g9_sockets_that_do_not_read_stay_within_the_budget_and_are_told_exactly_what_they_miss() {
    let fleet = fleet(DropPolicy::DropOldest).await;
    let mut stuck = stuck(&fleet).await;
    let mut fast = fleet.connect(0, user("acme", "fast", "fast")).await.unwrap();
    let rounds = 30;
    let most = publish(&fleet, rounds, 20_000).await;
    assert!((BUDGET / 2..BUDGET + BUDGET / 8).contains(&most), "{most}");
    assert_eq!(fast.expect_events(rounds).await.len(), rounds);
    assert!(fleet.labelled("dws_memory_relieved_sockets_total", "gap") > 0.0);
    assert_eq!(fleet.total("dws_connections_closed_total"), 0.0);
    let mut dropped = 0;
    for client in &mut stuck {
        let seen = client.drain(Duration::from_secs(1)).await;
        let of = |kind: &str| {
            let frames = seen.iter().filter_map(|seen| if let Seen::Frame(frame, _) = seen { Some(frame) } else { None });
            frames.filter(|frame| frame["type"] == kind).cloned().collect::<Vec<_>>()
        };
        let missed: u64 = of("gap").iter().map(|gap| gap["payload"]["dropped"].as_u64().unwrap()).sum();
        assert_eq!(of("event").len() + usize::try_from(missed).unwrap(), rounds);
        dropped += missed;
    }
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    let expected = dropped as f64;
    assert_eq!(fleet.labelled("dws_websocket_messages_dropped_total", "memory"), expected);
    // Nothing is left behind.
    fleet.all_settled().await;
    drop(stuck);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(memory(&fleet).used(), 0);
}

#[tokio::test(start_paused = true)]
async fn g9_where_nothing_may_be_dropped_the_slowest_are_closed_with_1013() {
    let fleet = fleet(DropPolicy::Block).await;
    let mut stuck = stuck(&fleet).await;
    let mut fast = fleet.connect(0, user("acme", "fast", "fast")).await.unwrap();
    let most = publish(&fleet, 30, 20_000).await;
    assert!((BUDGET / 2..BUDGET + BUDGET / 4).contains(&most), "{most}");
    assert_eq!(fast.expect_events(30).await.len(), 30);
    let closed = fleet.labelled("dws_connections_closed_total", "memory-pressure");
    assert!((1.0..100.0).contains(&closed), "{closed}");
    assert_eq!(fleet.total("dws_connections_closed_total"), closed);
    let mut whole = 0;
    for client in &mut stuck {
        let seen = client.drain_seqs(Duration::from_secs(1)).await;
        whole += usize::from(seen.len() == 30);
    }
    assert!(whole > 0, "anyone who was not closed has all");
}

#[tokio::test(start_paused = true)]
async fn g9_where_what_is_being_written_is_too_much_the_slowest_are_closed() {
    let fleet = fleet(DropPolicy::DropOldest).await;
    let _stuck = stuck(&fleet).await;
    let mut fast = fleet.connect(0, user("acme", "fast", "fast")).await.unwrap();
    publish(&fleet, 1, 300_000).await;
    fast.expect_event().await;
    assert!(memory(&fleet).used() > BUDGET);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(memory(&fleet).used() <= BUDGET);
    let closed = fleet.labelled("dws_memory_relieved_sockets_total", "closed");
    assert!((40.0..60.0).contains(&closed), "{closed}");
    fleet.publish("wa.acme.fast.chats", "{}");
    fast.expect_event().await;
}

/// The beginning of a message of 60,000 bytes that does not come to its end.
fn unfinished() -> Vec<u8> {
    let mut bytes = vec![0x82, 0xfe, 0xea, 0x60, 0, 0, 0, 0];
    bytes.resize(50_000, 7);
    bytes
}

#[tokio::test(start_paused = true)]
async fn g9_messages_that_never_get_whole_are_within_the_budget() {
    let fleet = fleet(DropPolicy::DropOldest).await;
    let mut fast = fleet.connect(0, user("acme", "fast", "fast")).await.unwrap();
    let mut clients = Vec::new();
    for n in 0..400 {
        let mut client = fleet.open_raw(0, user("acme", "a1", &format!("u{n}")), 64 * 1024).await.unwrap();
        client.write_all(&unfinished()).await.unwrap();
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(memory(&fleet).used() <= BUDGET, "{}", memory(&fleet).used());
    let closed = fleet.labelled("dws_connections_closed_total", "memory-pressure");
    assert!((1.0..300.0).contains(&closed), "{closed}");
    fleet.publish("wa.acme.fast.chats", "{}");
    fast.expect_event().await;
}

#[tokio::test(start_paused = true)]
async fn g9_a_message_that_never_gets_whole_ends_its_socket_whatever_else_its_client_says() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.open_raw(0, user("acme", "a1", "sari"), 64 * 1024).await.unwrap();
    client.write_all(&[0x01, 0x81, 0, 0, 0, 0, b'x']).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let pings = async {
        while writer.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut all = Vec::new();
    let read = async { reader.read_to_end(&mut all).await };
    let _ = tokio::time::timeout(Duration::from_secs(100), async { tokio::join!(pings, read) }).await.unwrap();
    assert_eq!(fleet.labelled("dws_connections_closed_total", "pong-timeout"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn g9_what_a_client_was_sending_is_let_go_of_with_its_socket_whoever_remembers_the_session() {
    let fleet = Fleet::start(1).await;
    let mut sari = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    // As a renewal without an answer has it remembered: its lock may have to be given back yet.
    let remembered = fleet.pods[0].pod.hub().sessions();
    fleet.store.set_frozen(true);
    for chat in ["c1", "c2"] {
        sari.send(&format!(r#"{{"type":"select_chat","payload":{{"chat_id":"{chat}"}}}}"#)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(memory(&fleet).used() > 0, "the second waits for the first");
    fleet.pods[0].pod.hub().evict(remembered[0].connection(), CloseReason::GoingAway);
    drop(sari);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((remembered.len(), memory(&fleet).used()), (1, 0));
}
