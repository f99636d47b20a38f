//! G5, G6 and what a socket does: slow clients, pings, bad frames, limits.

use std::time::Duration;

use daisi_ws_service::config::DropPolicy;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    client::Seen,
    fleet::{Fleet, user, without_repair},
};

const QUIET: Duration = Duration::from_secs(3);

/// Payload of about a kilobyte.
fn kilobyte() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(1000))
}

#[tokio::test(start_paused = true)]
async fn g5_g6_a_slow_client_loses_the_oldest_is_told_where_and_holds_nobody_up() {
    let fleet = Fleet::with(1, |config| {
        without_repair(config);
        config.app.websocket_message_buffer_size = 10;
    })
    .await;
    let mut slow = fleet.open(0, user("acme", "a1", "slow"), 8 * 1024).await.unwrap();
    let mut fast = fleet.connect(0, user("acme", "a1", "fast")).await.unwrap();
    let mut published = Vec::new();
    for _ in 0..100 {
        published.push(fleet.publish("wa.acme.a1.chats", &kilobyte()));
        // The others are not held up: each event is there before the next is published.
        assert_eq!(fast.expect_event().await.seq, *published.last().unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slow.expect_ready().await;
    let mut expected = published.iter().copied();
    let (mut got, mut lost) = (0, 0);
    for seen in slow.drain(QUIET).await {
        let Seen::Frame(frame, _) = seen else { panic!("{seen:?}") };
        match frame["type"].as_str() {
            Some("event") => {
                assert_eq!(frame["seq"].as_u64(), expected.next());
                got += 1;
            }
            Some("gap") => {
                let gap = &frame["payload"];
                let dropped = gap["dropped"].as_u64().unwrap();
                assert_eq!(gap["first_seq"].as_u64(), expected.next());
                let last = (1..dropped).filter_map(|_| expected.next()).last();
                assert_eq!(gap["last_seq"].as_u64(), last.or(gap["first_seq"].as_u64()));
                lost += dropped;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((got + lost, expected.next()), (100, None));
    assert!(lost > 50, "{lost}");
    assert_eq!(fleet.total("dws_websocket_messages_dropped_total"), f64::from(u32::try_from(lost).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn g6_a_burst_to_a_client_that_reads_is_never_dropped() {
    let fleet = Fleet::with(1, |config| config.app.websocket_message_buffer_size = 10).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let published: Vec<u64> = (0..500).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
    assert_eq!(client.expect_events(500).await, published);
}

#[tokio::test(start_paused = true)]
async fn all_that_waits_for_a_socket_leaves_at_once_however_much_it_is() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.open(0, user("acme", "a1", "u1"), 4 << 20).await.unwrap();
    client.expect_ready().await;
    let since = tokio::time::Instant::now();
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(33_000));
    let published: Vec<u64> = (0..30).map(|_| fleet.publish("wa.acme.a1.chats", &large)).collect();
    assert_eq!(client.expect_events(published.len()).await, published);
    // Neither a ping nor another event had to come first.
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn fault_slow_client_that_takes_no_bytes_for_the_write_time_out_is_closed() {
    let fleet = Fleet::start(1).await;
    let _stuck = fleet.open(0, user("acme", "a1", "stuck"), 512).await.unwrap();
    fleet.publish("wa.acme.a1.chats", &kilobyte());
    tokio::time::sleep(Duration::from_secs(32)).await;
    assert_eq!(fleet.pods[0].pod.hub().len(), 0);
    assert_eq!(fleet.labelled("dws_connections_closed_total", "slow-client"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn g6_with_policy_block_nothing_is_dropped_and_the_socket_is_closed_with_1013_when_its_overflow_is_full() {
    let fleet = Fleet::with(1, |config| {
        without_repair(config);
        config.app.websocket_message_buffer_size = 10;
        config.app.websocket_backpressure_drop_policy = DropPolicy::Block;
    })
    .await;
    let mut slow = fleet.open(0, user("acme", "a1", "slow"), 4 * 1024).await.unwrap();
    let mut published = Vec::new();
    for _ in 0..60 {
        published.push(fleet.publish("wa.acme.a1.chats", &kilobyte()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slow.expect_ready().await;
    assert_eq!(slow.drain_seqs(QUIET).await, published);
    slow.close().await;
    let mut stuck = fleet.open(0, user("acme", "a1", "stuck"), 4 * 1024).await.unwrap();
    for _ in 0..200 {
        fleet.publish("wa.acme.a1.chats", &kilobyte());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fleet.labelled("dws_connections_closed_total", "slow-client"), 1.0);
    let _ = stuck.expect_close().await;
}

#[tokio::test(start_paused = true)]
async fn fault_dead_client_is_closed_and_a_silent_one_that_answers_pings_stays() {
    let fleet = Fleet::start(1).await;
    let mut healthy = fleet.connect(0, user("acme", "a1", "healthy")).await.unwrap();
    // Only a client that reads answers pings.
    let _dead = fleet.open(0, user("acme", "a1", "dead"), 4096).await.unwrap();
    healthy.expect_silence(Duration::from_secs(200)).await;
    assert_eq!(fleet.pods[0].pod.hub().len(), 1);
    assert_eq!(fleet.labelled("dws_connections_closed_total", "pong-timeout"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn frames_that_make_no_sense_are_answered_and_cost_nothing_else() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    for bad in ["", "nonsense", "[]", "{}", r#"{"type":"x"}"#, r#"{"type":"select_chat","payload":{"chat_id":"a b"}}"#] {
        client.send(bad).await;
        assert_eq!(client.expect("error").await["payload"]["code"], "BadRequest", "{bad}");
    }
    client.send_message(Message::binary(vec![1, 2])).await;
    assert_eq!(client.expect("error").await["payload"]["code"], "BadRequest");
    client.send(r#"{"type":"ready","payload":{"x":1}}"#).await;
    client.expect("ready").await;
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    assert_eq!(client.expect_event().await.seq, seq);
}

#[tokio::test(start_paused = true)]
async fn an_admin_can_select_no_chat() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, crate::support::fleet::admin("root", None)).await.unwrap();
    client.send(r#"{"type":"select_chat","payload":{"chat_id":"c"}}"#).await;
    assert_eq!(client.expect("error").await["payload"]["code"], "BadRequest");
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_cannot_be_registered_is_refused_and_the_one_before_stays() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    client.select_chat("first").await;
    fleet.store.set_down(true);
    client.send(r#"{"type":"select_chat","payload":{"chat_id":"second"}}"#).await;
    assert_eq!(client.expect("error").await["payload"]["code"], "SubscriptionFailure");
    fleet.store.set_down(false);
    fleet.publish("wa.acme.a1.messages.second", "{}");
    let seq = fleet.publish("wa.acme.a1.messages.first", "{}");
    assert_eq!(client.expect_event().await.seq, seq);
}

#[tokio::test(start_paused = true)]
async fn g9_a_client_over_its_message_rate_is_closed_with_4429() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    for _ in 0..60 {
        client.send(r#"{"type":"ready"}"#).await;
    }
    assert_eq!(client.expect_close().await, Some(4429));
}

#[tokio::test(start_paused = true)]
async fn g9_a_message_over_the_size_limit_closes_the_socket_with_1009() {
    let fleet = Fleet::with(1, |config| config.app.max_message_bytes = 1000).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    client.send(&"x".repeat(1001)).await;
    assert_eq!(client.expect_close().await, Some(1009));
}

#[tokio::test(start_paused = true)]
async fn a_socket_is_closed_with_4403_when_its_token_runs_out() {
    let fleet = Fleet::start(1).await;
    let mut claims = user("acme", "a1", "sari");
    if let daisi_ws_domain::claims::Claims::User(claims) = &mut claims {
        claims.expires_at = daisi_ws_service::runtime::clock::now() + Duration::from_secs(30);
    }
    let mut client = fleet.connect(0, claims).await.unwrap();
    client.expect_silence(Duration::from_secs(28)).await;
    assert_eq!(client.expect("error").await["payload"]["code"], "InvalidToken");
    assert_eq!(client.expect_close().await, Some(4403));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_runs_out_before_the_first_ping_closes_its_socket_on_time() {
    let fleet = Fleet::start(1).await;
    let mut claims = user("acme", "a1", "sari");
    if let daisi_ws_domain::claims::Claims::User(claims) = &mut claims {
        claims.expires_at = daisi_ws_service::runtime::clock::now() + Duration::from_secs(3);
    }
    let mut client = fleet.connect(0, claims).await.unwrap();
    let opened = tokio::time::Instant::now();
    assert_eq!(client.expect("error").await["payload"]["code"], "InvalidToken");
    assert_eq!(client.expect_close().await, Some(4403));
    assert!(opened.elapsed() < Duration::from_secs(4), "closed after {:?}", opened.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_sockets_task_is_small() {
    let fleet = Fleet::with(1, |_| ()).await;
    let admission = fleet.pods[0]
        .pod
        .connector()
        .connect(
            user("acme", "a1", "u"),
            daisi_ws_service::application::admission::connect::Wishes::default(),
            "test",
            fleet.workers.first(),
        )
        .await
        .unwrap();
    let (_ours, theirs) = tokio::io::duplex(64);
    let task = size_of_val(&admission.serve(theirs.into(), None));
    assert!(task <= 700, "{task} bytes");
}
