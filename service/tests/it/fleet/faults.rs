//! The fault table, row by row: what happens to sockets, events and new connects.

use std::time::Duration;

use daisi_ws_domain::ids::PodId;
use daisi_ws_service::{application::admission::connect::ConnectError, ports::Routes as _};
use tokio::time::Instant;

use crate::support::{
    client::Client,
    fleet::{Fleet, user, without_repair},
};

const QUIET: Duration = Duration::from_secs(3);

/// One session a pod, all on one company and agent.
async fn one_session_a_pod(fleet: &Fleet) -> Vec<Client> {
    let mut clients = Vec::new();
    for pod in 0..fleet.pods.len() {
        clients.push(fleet.connect(pod, user("acme", "a1", &format!("user-{pod}"))).await.unwrap());
    }
    clients
}

/// Publishes an event every 50 ms for a while.
async fn publish_for(fleet: &Fleet, time: Duration) -> Vec<u64> {
    let until = Instant::now() + time;
    let mut published = Vec::new();
    while Instant::now() < until {
        published.push(fleet.publish("wa.acme.a1.chats", "{}"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    published
}

async fn got_all(client: &mut Client, published: &[u64], who: &str) {
    let mut seen = client.drain_seqs(QUIET).await;
    seen.sort_unstable();
    assert_eq!(seen, published, "{who}");
}

#[tokio::test(start_paused = true)]
async fn the_counters_of_a_peer_are_there_before_anything_is_sent_to_it() {
    let fleet = Fleet::start(2).await;
    for name in [
        "dws_grpc_circuitbreaker_tripped_total",
        "dws_grpc_messages_sent_total",
        "dws_grpc_forward_retry_attempts_total",
        "dws_grpc_forward_retry_success_total",
        "dws_grpc_forward_retry_failure_total",
        "dws_grpc_circuitbreaker_open",
        "dws_events_parked",
    ] {
        let families = fleet.pods[0].metrics.gather();
        let series = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        let pods: Vec<_> = series.flat_map(|metric| metric.get_label()).map(|pair| pair.value().to_owned()).collect();
        assert_eq!(pods, ["pod-1"], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn g7_fault_redis_down_sockets_stay_events_flow_and_new_connects_wait_for_its_return() {
    let fleet = Fleet::start(3).await;
    let mut clients = one_session_a_pod(&fleet).await;
    fleet.store.set_down(true);
    let mut published = publish_for(&fleet, Duration::from_secs(40)).await;
    let refused = fleet.open(0, user("acme", "a1", "new"), 4096).await.err();
    assert!(matches!(refused, Some(ConnectError::StoreUnavailable(_))), "{refused:?}");
    fleet.store.set_down(false);
    published.extend(publish_for(&fleet, Duration::from_secs(30)).await);
    for (n, client) in clients.iter_mut().enumerate() {
        got_all(client, &published, &format!("user-{n}")).await;
    }
    fleet.connect(0, user("acme", "a1", "new")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fault_route_key_of_another_kind_costs_its_own_session_and_no_other() {
    let fleet = Fleet::start(1).await;
    fleet.store.refuse_route(&user("acme", "bad", "u").base_route(), true);
    for _ in 0..3 {
        let connects = ["a1", "bad", "a2"].map(|agent| fleet.open(0, user("acme", agent, "sari"), 4096));
        let refused: Vec<_> = futures_util::future::join_all(connects).await.into_iter().map(Result::err).collect();
        let why = refused.iter().map(|refused| refused.as_ref().map(|error| error.unavailable().unwrap().as_str()));
        assert_eq!(why.collect::<Vec<_>>(), [None, Some("store_wrong_type"), None]);
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn fault_route_key_of_another_kind_events_go_to_every_pod_and_none_is_lost_when_it_is_deleted() {
    let fleet = Fleet::start(2).await;
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    // All events go through pod 0, and all are for pod 1.
    fleet.stream.cut(&fleet.pods[1].id, true);
    let route = user("acme", "a1", "far").base_route();
    let mut published = Vec::new();
    for refused in [true, false] {
        fleet.store.refuse_route(&route, refused);
        published.extend(publish_for(&fleet, Duration::from_secs(60)).await);
    }
    got_all(&mut far, &published, "far").await;
    assert_eq!(fleet.labelled("dws_route_lookups_total", "error"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn g7_fault_redis_frozen_events_flow() {
    let fleet = Fleet::start(3).await;
    let mut clients = one_session_a_pod(&fleet).await;
    fleet.store.set_frozen(true);
    let mut published = publish_for(&fleet, Duration::from_secs(20)).await;
    fleet.store.set_frozen(false);
    published.extend(publish_for(&fleet, Duration::from_secs(30)).await);
    for (n, client) in clients.iter_mut().enumerate() {
        got_all(client, &published, &format!("user-{n}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_redis_is_frozen_events_reach_the_sockets_of_the_pod_that_took_them_at_once() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    fleet.store.set_frozen(true);
    let since = Instant::now();
    for _ in 0..3 {
        let seq = fleet.publish("wa.acme.a1.chats", "{}");
        assert_eq!(client.expect_event().await.seq, seq);
    }
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn g7_fault_redis_restarted_empty_after_an_outage_nothing_is_lost_and_conflicts_are_settled() {
    let fleet = Fleet::start(3).await;
    let mut clients = one_session_a_pod(&fleet).await;
    fleet.store.set_down(true);
    let mut published = publish_for(&fleet, Duration::from_secs(10)).await;
    fleet.store.flush();
    fleet.store.set_down(false);
    published.extend(publish_for(&fleet, Duration::from_secs(30)).await);
    for (n, client) in clients.iter_mut().enumerate() {
        got_all(client, &published, &format!("user-{n}")).await;
    }
    // The locks are back: a newcomer takes the session over, as ever.
    let _new = fleet.connect(2, user("acme", "a1", "user-0")).await.unwrap();
    assert_eq!(clients[0].expect_close().await, Some(4402));
}

#[tokio::test(start_paused = true)]
async fn g7_fault_nats_down_sockets_stay_and_the_durable_catches_up() {
    let fleet = Fleet::start(2).await;
    let mut clients = one_session_a_pod(&fleet).await;
    let mut published = publish_for(&fleet, Duration::from_secs(2)).await;
    fleet.stream.set_down(true);
    for client in &mut clients {
        assert_eq!(client.expect_events(published.len()).await.len(), published.len());
        client.expect_silence(Duration::from_secs(60)).await;
    }
    fleet.stream.set_down(false);
    published = publish_for(&fleet, Duration::from_secs(2)).await;
    for (n, client) in clients.iter_mut().enumerate() {
        got_all(client, &published, &format!("user-{n}")).await;
    }
    fleet.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn fault_pod_killed_others_lose_nothing_and_nothing_stays_unsettled() {
    let fleet = Fleet::start(3).await;
    let mut clients = one_session_a_pod(&fleet).await;
    let mut published = publish_for(&fleet, Duration::from_secs(5)).await;
    fleet.kill(1);
    published.extend(publish_for(&fleet, Duration::from_secs(60)).await);
    for n in [0, 2] {
        got_all(&mut clients[n], &published, &format!("user-{n}")).await;
    }
    fleet.all_settled().await;
    // Its routes are gone too: nobody is sent events that have nowhere to go.
    let x = PodId::parse("x").unwrap();
    let lookup = fleet.store.handle(x.clone()).lookup(&x, &[user("acme", "a1", "u").base_route()]).await;
    assert!(!lookup.unwrap().pods[0].contains(&fleet.pods[1].id));
}

#[tokio::test(start_paused = true)]
async fn fault_pod_frozen_others_are_unaffected_and_its_own_get_a_gap_or_everything() {
    let fleet = Fleet::with(3, without_repair).await;
    let mut clients = one_session_a_pod(&fleet).await;
    fleet.freeze(1, true);
    let published = publish_for(&fleet, Duration::from_secs(60)).await;
    fleet.freeze(1, false);
    for n in [0, 2] {
        got_all(&mut clients[n], &published, &format!("user-{n}")).await;
    }
    fleet.all_settled().await;
    let gaps = clients[1].drain(QUIET).await.iter().filter(|seen| format!("{seen:?}").contains("gap")).count();
    assert!(gaps > 0);
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    assert_eq!(clients[1].expect_event().await.seq, seq);
}

#[tokio::test(start_paused = true)]
async fn fault_pod_frozen_its_sessions_can_be_taken_over_and_the_thawed_pod_lets_them_go() {
    let fleet = Fleet::start(2).await;
    let mut old = fleet.connect(1, user("acme", "a1", "sari")).await.unwrap();
    fleet.freeze(1, true);
    let mut new = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    fleet.freeze(1, false);
    assert_eq!(old.expect_close().await, Some(4402));
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    assert_eq!(new.expect_event().await.seq, seq);
}

#[tokio::test(start_paused = true)]
async fn fault_pod_cut_off_from_redis_only_none_lost_and_new_connects_are_refused_there() {
    let fleet = Fleet::start(3).await;
    let mut clients = one_session_a_pod(&fleet).await;
    fleet.store.cut(&fleet.pods[1].id, true);
    let mut published = publish_for(&fleet, Duration::from_secs(90)).await;
    let refused = fleet.open(1, user("acme", "a1", "x"), 4096).await.err();
    assert!(matches!(refused, Some(ConnectError::StoreUnavailable(_))), "{refused:?}");
    fleet.connect(2, user("acme", "a2", "x")).await.unwrap();
    fleet.store.cut(&fleet.pods[1].id, false);
    published.extend(publish_for(&fleet, Duration::from_secs(30)).await);
    for (n, client) in clients.iter_mut().enumerate() {
        got_all(client, &published, &format!("user-{n}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn fault_pod_cut_off_from_redis_for_longer_than_its_routes_live_still_gets_its_events() {
    let fleet = Fleet::start(2).await;
    // Alone on its route: nobody else keeps that alive.
    let mut client = fleet.connect(1, user("acme", "lonely", "sari")).await.unwrap();
    fleet.store.cut(&fleet.pods[1].id, true);
    tokio::time::sleep(Duration::from_secs(400)).await;
    let published: Vec<u64> = (0..50).map(|_| fleet.publish("wa.acme.lonely.chats", "{}")).collect();
    got_all(&mut client, &published, "cut off").await;
}

#[tokio::test(start_paused = true)]
async fn fault_pod_cut_off_from_peers_only_events_are_delivered_on_heal() {
    let fleet = Fleet::start(3).await;
    let mut clients = one_session_a_pod(&fleet).await;
    fleet.network.isolate(&fleet.pods[1].id, true);
    let mut published = publish_for(&fleet, Duration::from_secs(10)).await;
    fleet.network.isolate(&fleet.pods[1].id, false);
    published.extend(publish_for(&fleet, Duration::from_secs(5)).await);
    fleet.all_settled().await;
    assert_eq!(fleet.labelled("dws_events_settled_total", "given_up"), 0.0);
    for (n, client) in clients.iter_mut().enumerate() {
        got_all(client, &published, &format!("user-{n}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_steady_stream_of_events_does_not_put_off_the_look_at_a_peer_that_is_back() {
    let fleet = Fleet::start(2).await;
    // All events go through pod 0, and all are for pod 1.
    fleet.stream.cut(&fleet.pods[1].id, true);
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    fleet.cut_link(0, 1, true);
    publish_for(&fleet, Duration::from_secs(5)).await;
    fleet.cut_link(0, 1, false);
    // Much shorter than the breaker stays open by itself, and never a second without an event.
    let published = publish_for(&fleet, Duration::from_secs(3)).await;
    let seen = far.drain_seqs(Duration::from_millis(200)).await;
    assert!(seen.contains(published.last().unwrap()), "the breaker is still open: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn g5_fault_pod_cut_off_from_peers_past_the_limit_gets_a_gap() {
    let fleet = Fleet::with(2, |config| {
        without_repair(config);
        config.app.forward_max_deliveries = 4;
    })
    .await;
    // All events go through pod 0, and all are for pod 1.
    fleet.stream.cut(&fleet.pods[1].id, true);
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    fleet.cut_link(0, 1, true);
    let published: Vec<u64> = (0..10).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    fleet.all_settled().await;
    assert_eq!(fleet.stream.terminated(), published);
    fleet.cut_link(0, 1, false);
    let gap = far.expect("gap").await;
    assert_eq!(gap["payload"]["reason"], "given_up");
    assert_eq!(gap["payload"]["dropped"], 10);
    assert_eq!(
        (gap["payload"]["first_seq"].as_u64(), gap["payload"]["last_seq"].as_u64()),
        (published.first().copied(), published.last().copied())
    );
}

#[tokio::test(start_paused = true)]
async fn g8_fault_sigterm_sessions_elsewhere_lose_nothing_and_nothing_is_left_behind() {
    let fleet = Fleet::start(3).await;
    let mut clients = one_session_a_pod(&fleet).await;
    let drained = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fleet.pods[1].pod.drain(Duration::from_secs(30)).await;
        fleet.pods[1].tasks.shutdown().hard.cancel();
        fleet.network.kill(&fleet.pods[1].id);
    };
    let (published, ()) = tokio::join!(publish_for(&fleet, Duration::from_secs(10)), drained);
    for n in [0, 2] {
        got_all(&mut clients[n], &published, &format!("user-{n}")).await;
    }
    assert_eq!(clients[1].expect_close().await, Some(1001));
    fleet.all_settled().await;
    // No lock: the session can be had politely, at once. No route, no member.
    let started = Instant::now();
    let _back = fleet.connect(0, user("acme", "a1", "user-1")).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(10));
    let x = PodId::parse("x").unwrap();
    let lookup = fleet.store.handle(x.clone()).lookup(&x, &[user("acme", "a1", "u").base_route()]).await.unwrap();
    assert!(!lookup.pods[0].contains(&fleet.pods[1].id));
    assert!(fleet.pods[0].pod.directory().peers().iter().all(|peer| peer.id != fleet.pods[1].id));
}

#[tokio::test(start_paused = true)]
async fn g8_a_drain_spreads_its_goodbyes_and_refuses_newcomers() {
    let fleet = Fleet::start(1).await;
    let mut clients = Vec::new();
    for n in 0..450 {
        clients.push(fleet.connect(0, user("acme", "a1", &format!("u{n}"))).await.unwrap());
    }
    let started = Instant::now();
    let refused = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        fleet.open(0, user("acme", "a1", "late"), 4096).await.err()
    };
    let times = futures_util::future::join_all(clients.iter_mut().map(|client| async move {
        assert_eq!(client.expect_close().await, Some(1001));
        Instant::now()
    }));
    let ((), refused, times) = tokio::join!(fleet.pods[0].pod.drain(Duration::from_secs(30)), refused, times);
    assert!(matches!(refused, Some(ConnectError::Draining)), "{refused:?}");
    let spread = *times.iter().max().unwrap() - *times.iter().min().unwrap();
    assert!(spread >= Duration::from_secs(1), "{spread:?}");
    assert!(started.elapsed() < Duration::from_secs(30));
    let x = PodId::parse("x").unwrap();
    assert_eq!(fleet.store.handle(x.clone()).lookup(&x, &[]).await.unwrap().pods.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn g8_a_rolling_restart_of_all_pods_loses_nothing_for_sessions_elsewhere() {
    let mut fleet = Fleet::start(2).await;
    for round in 0..2 {
        let new = fleet.add_pod(None).await;
        fleet.settle().await;
        let mut clients = Vec::new();
        for pod in [round + 1, new] {
            clients.push(fleet.connect(pod, user("acme", "a1", &format!("u{pod}"))).await.unwrap());
        }
        let drained = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            fleet.pods[round].pod.drain(Duration::from_secs(30)).await;
            fleet.pods[round].tasks.shutdown().hard.cancel();
            fleet.network.kill(&fleet.pods[round].id);
        };
        let (published, ()) = tokio::join!(publish_for(&fleet, Duration::from_secs(5)), drained);
        for client in &mut clients {
            got_all(client, &published, "elsewhere").await;
        }
        for client in clients {
            client.close().await;
        }
    }
    fleet.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn why_no_event_comes_is_told_until_events_come_again() {
    let fleet = Fleet::start(1).await;
    let problems = || fleet.pods[0].pod.readiness().problems();
    assert_eq!(problems(), [] as [String; 0]);
    fleet.stream.set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(problems().iter().any(|problem| problem.starts_with("nats: ")), "{:?}", problems());
    fleet.stream.set_down(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(problems(), [] as [String; 0]);
}
