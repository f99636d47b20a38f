//! Pods that freeze, come and go at a high rate of events, and fleets that are restarted as a whole.

use std::time::Duration;

use daisi_ws_fleet::{
    containers::{
        cluster::{Cluster, Options},
        docker::docker,
    },
    faults::container,
    identity::Who,
    oracle::verdict::Verdict,
    proxy::Mode,
};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::measure::{IN_HAND, frozen, measured, newcomers, others_were_spared, until_now};

/// Long enough for every time-out that matters (breaker, liveness key, readiness, ack wait).
const LONG: Duration = Duration::from_secs(15);
/// Events a second for the sessions of the frozen pod alone.
const FOR_THE_FROZEN: u32 = 2000;
/// With those of the load, a thousand events a second.
const UP_TO_A_THOUSAND: u32 = 820;
/// With the load as it will be, before a fault and after it.
const RUN_UP: Duration = Duration::from_secs(5);

fn rushed(verdict: &Verdict, per_second: u32) {
    assert!(verdict.stored_rate > f64::from(per_second) / 2.0, "the rush was too small: {}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_frozen_at_a_high_rate() {
    let fault = "Pod frozen for 15 s, with 2,000 events/s for its own sessions alone";
    let verdict = measured(34, fault, Options::pods(3), async |cluster, load| {
        let busy = Who::alone("busy");
        load.join(cluster, [(busy.clone(), vec![1])]).await?;
        load.rush(&busy, FOR_THE_FROZEN);
        load.run(RUN_UP).await;
        Ok(frozen(&cluster.pods[1].container, LONG, true).await?.at(1))
    })
    .await;
    rushed(&verdict, FOR_THE_FROZEN);
    others_were_spared(&verdict, IN_HAND);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pods_join_while_anothers_redis_is_slow() {
    let fault = "Three pods join in turn while another's link to Redis is 200 ms slower each way";
    let verdict = measured(83, fault, Options::pods(3), async |cluster, load| {
        let began = Instant::now();
        cluster.redis_link(&cluster.pods[0], Mode::Delay(Duration::from_millis(200)));
        load.run(Duration::from_secs(2)).await;
        for newest in 3..6 {
            cluster.add_pod().await?;
            // They try from the first moment on, so that each has its socket as soon as there is one to be had.
            newcomers(cluster, load, 8, &[newest]).await?;
            load.run(Duration::from_secs(2)).await;
        }
        load.run(RUN_UP).await;
        cluster.heal();
        Ok(until_now(began, false).at(0))
    })
    .await;
    assert_eq!((verdict.closes.len(), verdict.away, verdict.announced), (0, 0, 0), "{}", verdict.describe());
    others_were_spared(&verdict, IN_HAND);
}

async fn given_up(cluster: &Cluster) -> f64 {
    let mut sum = 0.0;
    for pod in &cluster.pods {
        sum += pod.metric("dws_events_settled_total", "outcome=\"given_up\"").await.unwrap();
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_leaves_at_a_thousand_events_a_second() {
    let fault = "Pod leaves for good, at 1,000 events/s";
    let mut given = f64::NAN;
    let verdict = measured(84, fault, Options::pods(3), async |cluster, load| {
        // Half of what is stored concerns the one that leaves, and goes with its session to the next pod.
        for (agent, pods) in [("busy-0", vec![0]), ("busy-1", vec![1, 2])] {
            load.join(cluster, [(Who::alone(agent), pods)]).await?;
            load.rush(&Who::alone(agent), UP_TO_A_THOUSAND / 2);
        }
        load.run(RUN_UP).await;
        let began = Instant::now();
        assert_eq!(cluster.leave(1).await?, 0);
        let time = until_now(began, false).at(1);
        load.everybody_is_connected().await?;
        load.run(RUN_UP).await;
        given = given_up(cluster).await;
        Ok(time)
    })
    .await;
    assert_eq!(verdict.closes.keys().collect::<Vec<_>>(), [&1001], "{}", verdict.describe());
    // Nobody who watches the fleet is woken.
    assert!(
        given < 0.5 && verdict.announced == 0,
        "{given} events were given up for a pod that said goodbye: {}",
        verdict.describe()
    );
    rushed(&verdict, UP_TO_A_THOUSAND);
    others_were_spared(&verdict, 0);
}

async fn all_ready(cluster: &Cluster) -> anyhow::Result<()> {
    for pod in &cluster.pods {
        pod.find().await?;
        pod.ready().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn the_whole_fleet_is_restarted() {
    let verdict = measured(85, "SIGTERM to all pods at once, started again", Options::pods(3), async |cluster, load| {
        let began = Instant::now();
        try_join_all(cluster.pods.iter().map(|pod| container::restart(&pod.container))).await?;
        all_ready(cluster).await?;
        let time = until_now(began, false);
        load.everybody_is_connected().await?;
        Ok(time)
    })
    .await;
    // Who is sent away by one pod may meet another that goes as well.
    assert!(verdict.closes.contains_key(&1001), "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn the_whole_fleet_is_killed() {
    let verdict = measured(86, "All pods killed at once, started again", Options::pods(3), async |cluster, load| {
        let pods: Vec<&str> = cluster.pods.iter().map(|pod| pod.container.as_str()).collect();
        let began = Instant::now();
        docker(&[&["kill"], &pods[..]].concat()).await?;
        docker(&[&["start"], &pods[..]].concat()).await?;
        all_ready(cluster).await?;
        let time = until_now(began, false);
        load.everybody_is_connected().await?;
        Ok(time)
    })
    .await;
    assert_eq!(verdict.closes.values().sum::<usize>(), 63, "{}", verdict.describe());
}
