//! Pods that come, go, are taken for others, or stand in a store that says strange things.

use std::time::Duration;

use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use daisi_ws_service::ports::{Announce, MAX_PODS, RouteChange, Routes as _, Standing};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    far::far,
    fleet::{Fleet, TestPod, total, user},
};

const QUIET: Duration = Duration::from_secs(3);

/// Has one pod take all events.
fn only_takes(fleet: &Fleet, taker: usize) {
    for (n, pod) in fleet.pods.iter().enumerate() {
        fleet.stream.cut(&pod.id, n != taker);
    }
}

fn pod(id: &str) -> PodId {
    PodId::parse(id).unwrap()
}

fn record(id: &str) -> PodRecord {
    PodRecord { id: pod(id), address: format!("{id}:1"), started_at: Duration::from_secs(1) }
}

fn chats(agent: &str) -> RouteKey {
    user("acme", agent, "u").base_route()
}

/// Whether a pod has its liveness key now.
async fn is_alive(fleet: &Fleet, at: &TestPod) -> bool {
    let asked = [(at.id.clone(), Vec::new())];
    let standing = fleet.store.handle(pod("asks")).resolve(&asked, false).await.unwrap();
    matches!(&standing.1[0], Standing::Alive(record) if *record == at.record)
}

// ---- whom a pod knows
// ------------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_newcomer_learns_from_its_peers_of_a_pod_that_an_emptied_store_does_not_show() {
    let mut fleet = Fleet::start(2).await;
    let mut cut_off = fleet.connect(1, user("acme", "a1", "sari")).await.unwrap();
    fleet.store.cut(&fleet.pods[1].id, true);
    fleet.store.flush();
    fleet.settle().await;
    let newcomer = fleet.add_pod(None).await;
    only_takes(&fleet, newcomer);
    let published: Vec<u64> = (0..60).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
    assert_eq!(cut_off.drain_seqs(QUIET).await, published);
    assert_eq!(fleet.total("dws_events_unclaimed_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn newcomers_that_come_together_learn_of_it_too() {
    let mut fleet = Fleet::start(2).await;
    fleet.store.cut(&fleet.pods[1].id, true);
    fleet.store.flush();
    fleet.settle().await;
    let newcomers = ["n1", "n2", "n3"].map(|id| {
        let at = fleet.launch(id, &format!("{id}:1"), None);
        fleet.network.register(&at.record, at.pod.peer_service());
        at
    });
    for at in &newcomers {
        at.pod.joined().await;
        assert!(at.pod.directory().peer(&fleet.pods[1].id).is_some(), "{}", at.id);
    }
    fleet.pods.extend(newcomers);
    fleet.settle().await;
    assert_eq!(fleet.pods[2].pod.directory().fleet_size(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_whose_peer_is_unreachable_asks_it_when_it_is_back() {
    let mut fleet = Fleet::start(2).await;
    fleet.store.cut(&fleet.pods[1].id, true);
    fleet.store.flush();
    fleet.settle().await;
    for at in &fleet.pods {
        fleet.network.cut(&pod("pod-2"), &at.id, true);
    }
    let since = Instant::now();
    let newcomer = fleet.add_pod(None).await;
    assert!(since.elapsed() < Duration::from_secs(3), "it waited for {:?}", since.elapsed());
    assert!(fleet.pods[newcomer].pod.directory().peer(&fleet.pods[1].id).is_none());
    for at in &fleet.pods {
        fleet.network.cut(&pod("pod-2"), &at.id, false);
    }
    sleep(QUIET).await;
    assert!(fleet.pods[newcomer].pod.directory().peer(&fleet.pods[1].id).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_pod_cut_off_from_the_store_hands_events_to_a_newcomer_all_the_same() {
    let mut fleet = Fleet::start(2).await;
    fleet.store.cut(&fleet.pods[1].id, true);
    let newcomer = fleet.add_pod(None).await;
    let mut client = fleet.connect(newcomer, user("acme", "a1", "sari")).await.unwrap();
    only_takes(&fleet, 1);
    let published: Vec<u64> = (0..20).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
    assert_eq!(client.drain_seqs(QUIET).await, published);
}

#[tokio::test(start_paused = true)]
async fn no_event_is_nobodys_to_a_pod_with_a_slow_link_while_another_joins() {
    let mut fleet = Fleet::start(1).await;
    let slow = fleet.add_pod(Some(far(Duration::from_millis(200)))).await;
    for _ in 0..10 {
        let newcomer = fleet.add_pod(None).await;
        only_takes(&fleet, slow);
        let mut client = fleet.connect(newcomer, user("acme", &format!("a{newcomer}"), "sari")).await.unwrap();
        let mut published = Vec::new();
        for _ in 0..60 {
            published.push(fleet.publish(&format!("wa.acme.a{newcomer}.chats"), "{}"));
            sleep(Duration::from_millis(20)).await;
        }
        let mut seen = client.drain_seqs(QUIET).await;
        seen.sort_unstable();
        assert_eq!(seen, published, "newcomer {newcomer}");
    }
    assert_eq!(fleet.total("dws_events_unclaimed_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_no_routes_before_it_is_a_member() {
    let fleet = Fleet::start(1).await;
    let late = fleet.launch("late", "late:1", Some(far(Duration::from_millis(400))));
    let since = Instant::now();
    // The store is near for all but the routes: without its place the pod could write them before anybody can know it.
    let admitted = late
        .pod
        .connector()
        .connect(
            user("acme", "a1", "sari"),
            daisi_ws_service::application::admission::connect::Wishes::default(),
            "test",
            fleet.workers.first(),
        )
        .await;
    assert!(admitted.is_ok());
    // One way there and back for the announcement, and only then one for the route.
    assert!(since.elapsed() >= Duration::from_millis(1600), "it let a session in after {:?}", since.elapsed());
}

// ---- pods that go
// ----------------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn g8_a_pod_that_leaves_under_load_costs_the_others_hardly_a_retry_and_nothing_is_given_up() {
    let fleet = Fleet::start(3).await;
    let mut clients = Vec::new();
    for n in 0..3 {
        clients.push(fleet.connect(n, user("acme", "a1", &format!("user-{n}"))).await.unwrap());
    }
    let drained = async {
        sleep(Duration::from_secs(1)).await;
        fleet.pods[1].pod.drain(Duration::from_secs(30)).await;
        fleet.pods[1].tasks.shutdown().hard.cancel();
        fleet.network.kill(&fleet.pods[1].id);
        // What it sent back while its session could have come back elsewhere is no failure.
        fleet.labelled("dws_events_settled_total", "retried")
    };
    let publish = async {
        let mut published = Vec::new();
        for _ in 0..6000 {
            published.push(fleet.publish("wa.acme.a1.chats", "{}"));
            sleep(Duration::from_millis(1)).await;
        }
        published
    };
    let (published, sent_back) = tokio::join!(publish, drained);
    for n in [0, 2] {
        let mut seen = clients[n].drain_seqs(QUIET).await;
        seen.sort_unstable();
        assert_eq!(seen, published, "user-{n}");
    }
    fleet.all_settled().await;
    let settled = |outcome| fleet.labelled("dws_events_settled_total", outcome);
    assert_eq!(settled("given_up"), 0.0);
    let retried = settled("retried") - sent_back;
    assert!(retried <= 10.0, "{retried} retried");
}

// ---- two under one id
// ------------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_second_pod_under_an_id_ends_and_the_first_keeps_sessions_routes_and_membership() {
    let fleet = Fleet::start(2).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let twin = fleet.launch("pod-0", "elsewhere:50051", None);
    timeout(Duration::from_secs(2), twin.pod.id_lost()).await.expect("it is refused");
    assert!(
        twin.pod
            .connector()
            .connect(
                user("acme", "a1", "other"),
                daisi_ws_service::application::admission::connect::Wishes::default(),
                "test",
                fleet.workers.first()
            )
            .await
            .is_err()
    );
    twin.pod.drain(Duration::from_secs(5)).await;
    only_takes(&fleet, 1);
    let published: Vec<u64> = (0..20).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
    assert_eq!(client.drain_seqs(QUIET).await, published);
    assert!(is_alive(&fleet, &fleet.pods[0]).await);
}

#[tokio::test(start_paused = true)]
async fn the_second_pod_under_an_id_ends_even_if_it_cannot_reach_the_first() {
    let fleet = Fleet::start(1).await;
    fleet.network.isolate(&fleet.pods[0].id, true);
    let twin = fleet.launch("pod-0", "elsewhere:50051", None);
    timeout(Duration::from_secs(5), twin.pod.id_lost()).await.expect("it sees that the first lives");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_pods_successor_at_its_address_takes_its_place_at_once() {
    let fleet = Fleet::start(1).await;
    fleet.kill(0);
    fleet.store.cut(&fleet.pods[0].id, false);
    let since = Instant::now();
    let again = fleet.launch("pod-0", "pod-0:50051", None);
    again.pod.joined().await;
    assert!(since.elapsed() <= Duration::from_millis(500), "{:?}", since.elapsed());
    assert!(is_alive(&fleet, &again).await);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_pods_successor_elsewhere_waits_until_the_liveness_key_has_lapsed() {
    let fleet = Fleet::start(1).await;
    fleet.kill(0);
    fleet.store.cut(&fleet.pods[0].id, false);
    let since = Instant::now();
    let again = fleet.launch("pod-0", "elsewhere:50051", None);
    timeout(Duration::from_secs(6), again.pod.joined()).await.expect("the key lapses");
    assert!(since.elapsed() >= Duration::from_secs(3), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_pod_whose_place_was_taken_meanwhile_ends_and_takes_nothing_from_its_successor() {
    let fleet = Fleet::start(1).await;
    let _old = fleet.connect(0, user("acme", "a1", "old")).await.unwrap();
    fleet.freeze(0, true);
    // Between two of its announcements, so that its successor is first.
    sleep(Duration::from_millis(10_300)).await;
    fleet.store.cut(&fleet.pods[0].id, false);
    let again = fleet.launch("pod-0", "elsewhere:50051", None);
    timeout(Duration::from_secs(15), fleet.pods[0].pod.id_lost()).await.expect("the old one sees its successor");
    fleet.pods[0].pod.drain(Duration::from_secs(5)).await;
    assert!(is_alive(&fleet, &again).await);
}

// ---- a store that says strange things
// --------------------------------------------------------------------------------------------

/// Puts pods of which nobody knows on the route of an agent.
async fn crowd(fleet: &Fleet, pods: usize, members: bool) {
    for n in 0..pods {
        let id = format!("unknown-{n}");
        let handle = fleet.store.handle(pod(&id));
        if members {
            handle.announce(Announce::of(&record(&id), Duration::from_millis(1))).await.unwrap();
        }
        handle.apply(&pod(&id), &[RouteChange::Add { route: chats("a1"), ttl: Duration::from_secs(1000) }]).await.unwrap();
    }
}

async fn a_crowd_holds_nothing_up(pods: usize, members: bool) {
    let mut fleet = Fleet::start(1).await;
    let taker = fleet.add_pod(Some(far(Duration::from_millis(10)))).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    only_takes(&fleet, taker);
    crowd(&fleet, pods, members).await;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(40) {
        let seq = fleet.publish("wa.acme.a1.chats", "{}");
        let published = Instant::now();
        assert_eq!(client.expect_event().await.seq, seq);
        assert!(published.elapsed() < Duration::from_secs(1), "held for {:?}", published.elapsed());
        assert!(is_alive(&fleet, &fleet.pods[taker]).await, "its liveness key has lapsed after {:?}", since.elapsed());
        sleep(Duration::from_millis(500)).await;
    }
    fleet.all_settled().await;
    assert_eq!(fleet.labelled("dws_events_settled_total", "given_up"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_unknown_pods_on_a_route_hold_no_event_up() {
    a_crowd_holds_nothing_up(1000, false).await;
}

#[tokio::test(start_paused = true)]
async fn more_unknown_members_on_a_route_than_a_fleet_has_hold_neither_an_event_up_nor_an_announcement() {
    a_crowd_holds_nothing_up(MAX_PODS + 100, true).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_members_are_taken_out_bit_by_bit() {
    let fleet = Fleet::start(1).await;
    crowd(&fleet, MAX_PODS + 100, true).await;
    sleep(Duration::from_secs(60)).await;
    let me = record("asks");
    let seen = fleet.store.handle(me.id.clone()).announce(Announce::of(&me, QUIET)).await.unwrap();
    assert_eq!(seen.members, 2, "the pod, and the one that asks");
    assert_eq!(total(&fleet.pods[0].metrics, "dws_peers", Some("unknown")), 0.0);
}

#[tokio::test(start_paused = true)]
async fn events_on_the_routes_of_pods_that_never_announce_themselves_are_settled_at_once_after_the_first() {
    let fleet = Fleet::start(1).await;
    let old = fleet.store.handle(pod("10.0.0.7"));
    old.apply(&pod("10.0.0.7"), &[RouteChange::Add { route: chats("a1"), ttl: Duration::from_secs(1000) }]).await.unwrap();
    fleet.publish("wa.acme.a1.chats", "{}");
    fleet.all_settled().await;
    let retried = fleet.labelled("dws_events_settled_total", "retried");
    assert!(retried > 0.0, "it could have been a pod about to announce itself");
    for _ in 0..100 {
        fleet.publish("wa.acme.a1.chats", "{}");
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(fleet.stream.ack_pending(), 0);
    assert_eq!(fleet.labelled("dws_events_settled_total", "retried"), retried);
    let on_route = fleet.store.handle(pod("asks")).lookup(&pod("asks"), &[chats("a1")]).await.unwrap();
    assert_eq!(on_route.pods, [[pod("10.0.0.7")]], "other old pods find it by that");
}
