//! G9: what happens at each limit.

use std::time::Duration;

use daisi_ws_service::application::connect::ConnectError;

use crate::support::fleet::{Fleet, user};

#[tokio::test(start_paused = true)]
async fn g9_a_full_pod_refuses_and_has_room_again_when_somebody_leaves() {
    let fleet = Fleet::with(1, |config| config.app.max_connections = 2).await;
    let first = fleet.connect(0, user("acme", "a1", "u1")).await.unwrap();
    let _second = fleet.connect(0, user("acme", "a1", "u2")).await.unwrap();
    assert_eq!(fleet.open(0, user("acme", "a1", "u3"), 4096).await.err(), Some(ConnectError::Full));
    first.close().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    fleet.connect(0, user("acme", "a1", "u3")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn g9_memory_of_a_socket_that_takes_nothing_is_bounded_in_bytes() {
    let fleet = Fleet::with(1, |config| config.app.websocket_buffer_max_bytes = 50_000).await;
    let _stuck = fleet.open(0, user("acme", "a1", "stuck"), 1024).await.unwrap();
    let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(5000));
    for _ in 0..100 {
        fleet.publish("wa.acme.a1.chats", &payload);
    }
    fleet.all_settled().await;
    // By then it counts as taking nothing.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let session = &fleet.pods[0].pod.hub().sessions()[0];
    assert!(session.mailbox().len() <= 10, "{}", session.mailbox().len());
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_dropped_half_way_leaves_nothing_behind() {
    let fleet = Fleet::start(1).await;
    for _ in 0..10 {
        let admission = fleet.pods[0].pod.connector().connect(user("acme", "a1", "sari"), "r").await.unwrap();
        drop(admission);
    }
    assert_eq!(fleet.pods[0].pod.hub().len(), 0);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let started = tokio::time::Instant::now();
    fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(10));
}
