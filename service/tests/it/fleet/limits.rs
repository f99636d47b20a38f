//! G9: what happens at each limit.

use std::time::Duration;

use daisi_ws_service::{application::admission::connect::ConnectError, readiness::Dependency};

use crate::support::fleet::{Fleet, TestPod, user};

#[tokio::test(start_paused = true)]
async fn g9_a_full_pod_refuses_and_has_room_again_when_somebody_leaves() {
    let fleet = Fleet::with(1, |config| config.app.max_connections = 2).await;
    let first = fleet.connect(0, user("acme", "a1", "u1")).await.unwrap();
    let _second = fleet.connect(0, user("acme", "a1", "u2")).await.unwrap();
    assert!(matches!(fleet.open(0, user("acme", "a1", "u3"), 4096).await.err(), Some(ConnectError::Full)));
    first.close().await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    fleet.connect(0, user("acme", "a1", "u3")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_pod_steps_aside_while_another_has_room_and_a_full_fleet_stays_ready() {
    let fleet = Fleet::with(3, |config| config.app.max_connections = 2).await;
    let ready = async |expected: [bool; 3]| {
        // Two looks: the second knows what the peers said after the first.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let report = |pod: &TestPod| pod.pod.readiness().report(Duration::from_secs(3)).ready;
        assert_eq!(fleet.pods.iter().map(report).collect::<Vec<_>>(), expected);
    };
    fleet.pods.iter().for_each(|pod| pod.pod.readiness().observe(Dependency::Grpc, true));
    ready([true, true, true]).await;
    let mut clients = Vec::new();
    for user_id in ["a0", "b0"] {
        clients.push(fleet.connect(0, user("acme", "a1", user_id)).await.unwrap());
    }
    ready([false, true, true]).await;
    // One that drains, or that can't be reached, is nobody to point at.
    fleet.pods[2].pod.drain(Duration::from_secs(10)).await;
    for user_id in ["a1", "b1"] {
        clients.push(fleet.connect(1, user("acme", "a1", user_id)).await.unwrap());
    }
    ready([true, true, false]).await;
    assert_eq!(fleet.total("dws_full"), 2.0);
    clients.pop().unwrap().close().await;
    ready([false, true, false]).await;
    fleet.cut_link(0, 1, true);
    ready([true, true, false]).await;
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
        let admission = fleet.pods[0]
            .pod
            .connector()
            .connect(
                user("acme", "a1", "sari"),
                daisi_ws_service::application::admission::connect::Wishes::default(),
                "r",
                fleet.workers.first(),
            )
            .await
            .unwrap();
        drop(admission);
    }
    assert_eq!(fleet.pods[0].pod.hub().len(), 0);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let started = tokio::time::Instant::now();
    fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(10));
}
