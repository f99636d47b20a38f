//! A store that goes on as if nothing had happened, on old data or with some of it gone: no call fails, and its epoch is the
//! same.

use std::time::Duration;

use daisi_ws_domain::ids::PodId;
use daisi_ws_service::ports::Routes as _;

use crate::support::fleet::{Fleet, user};

const QUIET: Duration = Duration::from_secs(3);

/// Publishes for `sari`, of whom the store knows nothing, while the pod that takes the events meets the store as it is now.
async fn nothing_is_lost(fleet: &Fleet, lose: impl Fn()) {
    let mut sari = fleet.connect(2, user("acme", "lonely", "sari")).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        lose();
        let mut published = Vec::new();
        for _ in 0..30 {
            published.push(fleet.publish("wa.acme.lonely.chats", "{}"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut seen = sari.drain_seqs(QUIET).await;
        seen.sort_unstable();
        assert_eq!(seen, published);
    }
    assert!(fleet.labelled("dws_gaps_announced_total", "pod_resumed") < 0.5, "nobody missed anything");
}

#[tokio::test(start_paused = true)]
async fn g7_fault_redis_back_at_once_with_its_last_snapshot_nothing_is_lost() {
    let fleet = Fleet::start(3).await;
    let snapshot = fleet.store.snapshot();
    nothing_is_lost(&fleet, || fleet.store.restore(&snapshot)).await;
}

#[tokio::test(start_paused = true)]
async fn g7_fault_redis_evicts_a_route_nothing_is_lost() {
    let fleet = Fleet::start(3).await;
    let route = user("acme", "lonely", "sari").base_route();
    nothing_is_lost(&fleet, || fleet.store.evict(&route)).await;
}

/// A pod joins at the moment when Redis is back with what it held so long ago, and takes all events.
async fn a_newcomer_loses_nothing_on_a_snapshot_of(age: Duration) {
    let mut fleet = Fleet::start(2).await;
    let snapshot = fleet.store.snapshot();
    let mut sari = fleet.connect(1, user("acme", "lonely", "sari")).await.unwrap();
    tokio::time::sleep(age).await;
    fleet.pods.iter().for_each(|pod| fleet.stream.cut(&pod.id, true));
    fleet.store.restore(&snapshot);
    let published: Vec<u64> = (0..30).map(|_| fleet.publish("wa.acme.lonely.chats", "{}")).collect();
    fleet.add_pod(None).await;
    let mut seen = sari.drain_seqs(QUIET).await;
    seen.sort_unstable();
    assert_eq!(seen, published);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_joins_right_after_redis_is_back_with_a_snapshot_loses_nothing() {
    a_newcomer_loses_nothing_on_a_snapshot_of(Duration::from_millis(300)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_joins_a_redis_where_all_others_have_lapsed_waits_for_them() {
    a_newcomer_loses_nothing_on_a_snapshot_of(Duration::from_secs(20)).await;
}

#[tokio::test(start_paused = true)]
async fn after_redis_is_back_with_a_snapshot_routes_and_locks_are_written_again_at_once() {
    let fleet = Fleet::start(2).await;
    let snapshot = fleet.store.snapshot();
    let claims = user("acme", "lonely", "sari");
    let mut sari = fleet.connect(1, claims.clone()).await.unwrap();
    fleet.store.restore(&snapshot);
    // Two announcements, and much less than a refresh.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asker = PodId::parse("x").unwrap();
    let lookup = fleet.store.handle(asker.clone()).lookup(&asker, &[claims.base_route()]).await.unwrap();
    assert_eq!(lookup.pods, [[fleet.pods[1].id.clone()]]);
    // Her lock is held: a newcomer takes the session over.
    let _new = fleet.connect(0, claims).await.unwrap();
    assert_eq!(sari.expect_close().await, Some(4402));
}

#[tokio::test(start_paused = true)]
async fn after_redis_was_back_with_a_snapshot_look_ups_are_trusted_again() {
    let fleet = Fleet::start(2).await;
    let snapshot = fleet.store.snapshot();
    fleet.store.restore(&snapshot);
    fleet.publish("wa.acme.nobody.chats", "{}");
    fleet.all_settled().await;
    assert!(fleet.pods.iter().any(|pod| pod.pod.directory().is_settling()));
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert!(fleet.pods.iter().all(|pod| !pod.pod.directory().is_settling()));
}

#[tokio::test(start_paused = true)]
async fn a_count_of_retirements_that_went_back_with_the_data_is_no_gap() {
    let fleet = Fleet::start(2).await;
    let snapshot = fleet.store.snapshot();
    fleet.freeze(1, true);
    tokio::time::sleep(Duration::from_secs(30)).await;
    fleet.freeze(1, false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut sari = fleet.connect(1, user("acme", "a1", "sari")).await.unwrap();
    fleet.store.restore(&snapshot);
    sari.expect_silence(Duration::from_secs(10)).await;
}
