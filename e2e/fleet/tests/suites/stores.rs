//! Stores that go back in time, and the stream's side of it, under load.

use std::time::Duration;

use daisi_ws_fleet::{containers::cluster::Options, identity::Who, proxy::Mode};
use tokio::time::{Instant, sleep};

use crate::measure::{IN_HAND, measured, newcomers, no_session_noticed, others_were_spared, route, until_now};

/// Sessions that came after Redis was last written down, two at each pod.
const NEWCOMERS: usize = 6;
/// Long enough for two refreshes of what is in Redis, after which all would be well again in any case.
const UNTIL_REFRESHED: Duration = Duration::from_secs(20);
/// How long one pod's link to NATS carries nothing.
const HALF_OPEN: Duration = Duration::from_secs(3);
/// Events a second meanwhile: in the time until an event comes again, more than any window over what was taken lately would
/// remember.
const HIGH_RATE: u32 = 3500;
/// Longer than an ack wait.
const UNTIL_AGAIN: Duration = Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn redis_back_with_a_snapshot() {
    let fault = "Redis killed, back at once with a snapshot from before some sessions came";
    let options = Options::pods(3).with_a_redis_that_comes_back();
    let verdict = measured(13, fault, options, async |cluster, load| {
        cluster.snapshot().await?;
        let late = newcomers(cluster, load, NEWCOMERS, &[0, 1, 2]).await?;
        load.run(Duration::from_secs(1)).await;
        for who in &late {
            assert_eq!(cluster.redis_cli(&["scard", &route(who)]).await?, "1", "the route is there before the crash");
            assert!(!cluster.is_in_snapshot(&route(who)).await?, "and not in the snapshot");
        }
        assert!(cluster.is_in_snapshot("route:acme:agent-0:chats").await?, "the snapshot is not empty");
        let began = Instant::now();
        cluster.crash_redis().await?;
        let time = until_now(began, false);
        load.run(UNTIL_REFRESHED).await;
        Ok(time)
    })
    .await;
    no_session_noticed(&verdict);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn redis_fails_over_to_a_replica_that_lags() {
    let fault = "Redis fails over to a replica that lacks the last sessions";
    let verdict = measured(14, fault, Options::pods(3), async |cluster, load| {
        cluster.replicate().await?;
        cluster.let_replica_lag()?;
        let late = newcomers(cluster, load, NEWCOMERS, &[0, 1, 2]).await?;
        load.run(Duration::from_secs(1)).await;
        let replica = cluster.replica.as_ref().unwrap();
        for who in &late {
            assert_eq!(cluster.redis_cli(&["scard", &route(who)]).await?, "1", "the primary has the route");
            assert_eq!(replica.redis_cli(&["scard", &route(who)]).await?, "0", "and the replica lacks it");
        }
        assert_ne!(replica.redis_cli(&["scard", "route:acme:agent-0:chats"]).await?, "0", "the replica is not empty");
        let began = Instant::now();
        cluster.fail_over().await?;
        let time = until_now(began, false);
        load.run(UNTIL_REFRESHED).await;
        Ok(time)
    })
    .await;
    no_session_noticed(&verdict);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn one_pods_link_to_nats_is_half_open() {
    let fault = "Pod's link to NATS half-open for 3 s and then reset, at 3,500 events/s";
    let verdict = measured(25, fault, Options::pods(3), async |cluster, load| {
        let busy = Who::alone("busy");
        load.join(cluster, [(busy.clone(), vec![0])]).await?;
        load.rush(&busy, HIGH_RATE);
        load.run(Duration::from_secs(5)).await;
        let began = Instant::now();
        cluster.pods[1].to_nats.set(Mode::Stall);
        sleep(HALF_OPEN).await;
        // What the pod said meanwhile, acks above all, never arrives.
        cluster.pods[1].to_nats.reset();
        cluster.heal();
        let time = until_now(began, false).at(1);
        load.run(UNTIL_AGAIN).await;
        Ok(time)
    })
    .await;
    no_session_noticed(&verdict);
    assert!(verdict.stored_rate > f64::from(HIGH_RATE) / 2.0, "the rush was too small: {}", verdict.describe());
    others_were_spared(&verdict, IN_HAND);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn the_durable_is_deleted() {
    let verdict = measured(26, "The durable consumer deleted", Options::pods(3), async |_, load| {
        let began = Instant::now();
        load.publisher.delete_consumer().await?;
        load.run(Duration::from_secs(5)).await;
        Ok(until_now(began, false))
    })
    .await;
    no_session_noticed(&verdict);
}
