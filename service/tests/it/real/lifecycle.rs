//! Signals, drain, reload, outages and logs of real pods.

use std::time::Duration;

use tokio::time::Instant;

use super::RealFleet;
use crate::support::{
    fixture::{API_KEY, MINT_KEY, user_key, user_token},
    nats::publication,
    process::ServePod,
    wait,
};

#[tokio::test]
async fn g8_sigterm_closes_sockets_with_1001_leaves_nothing_in_redis_and_exits_with_0() {
    let mut fleet = RealFleet::start(1).await;
    let token = user_token("acme", "a1", "sari");
    let mut client = fleet.pods[0].connect("/ws/acme/a1", &token).await;
    client.select_chat("c1").await;
    fleet.pods[0].signal("TERM");
    assert_eq!(client.expect_close().await, Some(1001));
    assert!(fleet.pods[0].ended().await.success());
    let mut redis = fleet.redis.client().await;
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
    keys.retain(|key| !key.starts_with("token_cache:"));
    keys.sort();
    // What stays: the epoch, the chat to restore, and for a while the word that the pod is gone.
    assert_eq!(keys, ["pod_left:pod-0", "routes:epoch", "session:acme:a1:sari:selected_chat"]);
    let left_for: i64 = redis::cmd("TTL").arg("pod_left:pod-0").query_async(&mut redis).await.unwrap();
    assert!((1..=3600).contains(&left_for), "{left_for}");
}

#[tokio::test]
async fn a_second_process_under_a_pods_id_ends_and_takes_no_event_of_the_firsts_sessions() {
    let fleet = RealFleet::start(1).await;
    let mut client = fleet.pods[0].connect("/ws/acme/a1", &user_token("acme", "a1", "sari")).await;
    let mut twin = ServePod::spawn("pod-0", &fleet.around, &[]);
    let mut published = Vec::new();
    let status = {
        let mut ended = std::pin::pin!(twin.ended());
        // All the while that there are two.
        loop {
            tokio::select! {
                status = &mut ended => break status,
                () = tokio::time::sleep(Duration::from_millis(10)) => {
                    published.push(fleet.publish("wa.acme.a1.chats", "{}").await);
                }
            }
        }
    };
    assert!(!status.success(), "{status}");
    for seq in published {
        assert_eq!(client.expect_event().await.seq, seq);
    }
    fleet.all_settled(Duration::from_secs(5)).await;
    assert!(fleet.pods[0].get("/ready").await.unwrap().starts_with("HTTP/1.1 200"));
    let said = twin.log().join("\n");
    assert!(said.contains("give each a name of its own (server.pod_id)"), "it says what to set: {said}");
}

#[tokio::test]
async fn a_pod_has_no_huge_pages_so_that_few_sockets_take_little_memory() {
    let fleet = RealFleet::start(1).await;
    let status = fleet.pods[0].status();
    assert!(status.lines().any(|line| line.split_whitespace().eq(["THP_enabled:", "0"])), "{status}");
}

#[tokio::test]
async fn a_second_signal_ends_the_pod_at_once() {
    let mut fleet = RealFleet::start(1).await;
    // It takes no bytes and no goodbye: the drain would wait for it.
    let _stuck = fleet.pods[0].open("/ws/acme/a1", &user_token("acme", "a1", "stuck")).await.unwrap();
    fleet.pods[0].signal("TERM");
    wait::until("the drain begins", || std::future::ready(!fleet.pods[0].logged("the pod drains").is_empty())).await;
    let started = Instant::now();
    fleet.pods[0].signal("INT");
    fleet.pods[0].ended().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn sighup_reloads_the_configuration_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "app:\n  max_connections: 1\n").unwrap();
    let fleet = RealFleet::with(1, &[("DAISI_WS_CONFIG", file.to_str().unwrap())]).await;
    let pod = &fleet.pods[0];
    let _first = pod.connect("/ws/acme/a1", &user_token("acme", "a1", "u1")).await;
    assert!(pod.open("/ws/acme/a1", &user_token("acme", "a1", "u2")).await.is_err());
    std::fs::write(&file, "app:\n  max_connections: nonsense\n").unwrap();
    pod.signal("HUP");
    let refused = "the configuration was not reloaded: the old one stays in force";
    wait::until("the bad file is refused", || std::future::ready(!pod.logged(refused).is_empty())).await;
    assert!(pod.log().iter().any(|line| line.contains("app.max_connections")));
    std::fs::write(&file, "app:\n  max_connections: 10\n").unwrap();
    pod.signal("HUP");
    wait::until("the good file is in force", || async { pod.open("/ws/acme/a1", &user_token("acme", "a1", "u2")).await.is_ok() })
        .await;
}

#[tokio::test]
async fn g7_redis_and_nats_may_go_and_come_back_while_sockets_stay() {
    let mut fleet = RealFleet::start(2).await;
    let mut clients = Vec::new();
    for (n, pod) in fleet.pods.iter().enumerate() {
        clients.push(pod.connect("/ws/acme/a1", &user_token("acme", "a1", &format!("u{n}"))).await);
    }
    fleet.redis.stop();
    let mut seqs = Vec::new();
    for _ in 0..20 {
        seqs.push(fleet.publish("wa.acme.a1.chats", "{}").await);
    }
    let started = Instant::now();
    let refused = fleet.pods[0].open("/ws/acme/a1", &user_token("acme", "a1", "new")).await.err().unwrap();
    assert!(
        refused.to_string().contains("503") && started.elapsed() < Duration::from_secs(2),
        "{refused} {:?}",
        started.elapsed()
    );
    assert!(fleet.pods[0].get("/health").await.unwrap().starts_with("HTTP/1.1 200"));
    wait::until("/ready says that Redis is away", || async {
        fleet.pods[0].get("/ready").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 503"))
    })
    .await;
    fleet.redis.start_again_empty().await;
    for client in &mut clients {
        let mut got = client.expect_events(20).await;
        got.sort_unstable();
        assert_eq!(got, seqs);
    }
    wait::until("sessions can be had again", || async {
        fleet.pods[0].open("/ws/acme/a1", &user_token("acme", "a1", "new")).await.is_ok()
    })
    .await;
    fleet.nats.kill();
    for client in &mut clients {
        client.expect_silence(Duration::from_secs(2)).await;
    }
    fleet.nats.restart().await;
    let publisher = daisi_ws_service::adapters::nats::Publisher::connect(&fleet.nats.section()).await.unwrap();
    let seq = publisher.publish(&publication("wa.acme.a1.chats", "{}"), &[]).await.unwrap();
    for client in &mut clients {
        assert_eq!(client.expect_event().await.seq, seq);
    }
}

#[tokio::test]
async fn a_session_moves_between_real_pods_and_within_one() {
    let fleet = RealFleet::start(2).await;
    let token = user_token("acme", "a1", "sari");
    let mut first = fleet.pods[0].connect("/ws/acme/a1", &token).await;
    let mut second = fleet.pods[1].connect("/ws/acme/a1", &token).await;
    assert_eq!(first.expect_close().await, Some(4402));
    let mut third = fleet.pods[1].connect("/ws/acme/a1", &token).await;
    assert_eq!(second.expect_close().await, Some(4402));
    let seq = fleet.publish("wa.acme.a1.chats", "{}").await;
    assert_eq!(third.expect_event().await.seq, seq);
}

#[tokio::test]
async fn logs_are_json_with_ids_as_fields_and_without_secrets() {
    let fleet = RealFleet::start(1).await;
    let token = user_token("acme", "a1", "sari@acme.example");
    let client = fleet.pods[0].connect("/ws/acme/a1", &token).await;
    client.close().await;
    wait::until("the close is logged", || std::future::ready(!fleet.pods[0].logged("a session is closed").is_empty())).await;
    let opened = &fleet.pods[0].logged("a session is open")[0];
    for (field, value) in [("pod.id", "pod-0"), ("company.id", "acme"), ("agent.id", "a1"), ("user.id", "sari@acme.example")] {
        assert_eq!(opened[field], value, "{opened}");
    }
    assert!(opened["duration_ms"].is_number() && opened["request.id"].is_string(), "{opened}");
    for line in fleet.pods[0].log() {
        let secrets = [API_KEY, MINT_KEY, &user_key(), &token];
        assert!(secrets.iter().all(|secret| !line.contains(*secret)), "{line}");
    }
}

#[tokio::test]
async fn a_pod_that_starts_again_under_its_name_takes_its_sessions_back() {
    let mut fleet = RealFleet::start(1).await;
    let token = user_token("acme", "a1", "sari");
    let _lost = fleet.pods[0].connect("/ws/acme/a1", &token).await;
    fleet.pods[0].signal("KILL");
    fleet.pods[0].ended().await;
    fleet.pods[0] = ServePod::start("pod-0", &fleet.around, &[]).await;
    let mut back = fleet.pods[0].connect("/ws/acme/a1", &token).await;
    let seq = fleet.publish("wa.acme.a1.chats", "{}").await;
    assert_eq!(back.expect_event().await.seq, seq);
}
