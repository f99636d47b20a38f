//! A pod that is new gets its share of the sockets that are there.

use std::{sync::PoisonError, time::Duration};

use daisi_ws_fleet::{
    containers::{
        cluster::{Cluster, Options},
        pod::{Pod, SharedIp},
    },
    oracle::verdict::Verdict,
    traffic::{ledger::Seen, load::Load},
};
use daisi_ws_testbed::wait;
use tokio::time::Instant;

/// Sockets of each of the first three pods.
const AT_EACH: usize = 3000;
/// The average of four, and what is near enough to it: 1.1 times that.
const AVERAGE: f64 = 3.0 * AT_EACH as f64 / 4.0;
const NEAR: f64 = 1.1 * AVERAGE;
/// The fleet has to be the same for a minute, and loads are asked for each five seconds. From 3,000 sockets to 2,475 it takes
/// 18 s at one in a hundred a second, and as long again is for what a machine that does all at once makes of it.
const EVEN: Duration = Duration::from_secs(60 + 5 + 2 * 18);

async fn sockets(pods: &[Pod]) -> Vec<f64> {
    let mut all = Vec::new();
    for pod in pods {
        all.push(pod.metric("dws_active_connections", "type=").await.unwrap_or(f64::NAN));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn a_fourth_pod_gets_its_share_of_nine_thousand_sockets_and_none_moves_twice() {
    let mut cluster = Cluster::start(Options::pods(3)).await.unwrap();
    let then = SharedIp::default();
    let load = Load::start_crowd(&cluster, AT_EACH, &then).await.unwrap();
    // The balancer has the fourth in mind as soon as it is ready, and it has the fewest by far.
    cluster.add_pod().await.unwrap();
    let found = *cluster.pods[3].shared_ip().lock().unwrap_or_else(PoisonError::into_inner);
    *then.lock().unwrap_or_else(PoisonError::into_inner) = found;
    cluster.ready().await.unwrap();
    let joined = Instant::now();
    let is_even = || async { sockets(&cluster.pods).await[..3].iter().all(|sockets| *sockets <= NEAR) };
    let waited = wait::until("the sockets are evened out", EVEN, is_even).await;
    let took = joined.elapsed();
    let found = sockets(&cluster.pods).await;
    eprintln!("sockets after {took:?}: {found:?}");
    waited.unwrap();
    // What was under way comes to its end, and nothing begins anew.
    load.run(Duration::from_secs(20)).await;
    let later = sockets(&cluster.pods).await;
    load.everybody_is_connected().await.unwrap();
    let moves: Vec<usize> = load
        .clients
        .iter()
        .map(|client| client.look(|entries| entries.iter().filter(|entry| entry.seen == Seen::Moved).count()))
        .collect();
    let verdict = Verdict::of(&load.stop().await.unwrap(), None);
    eprintln!("sockets later: {later:?}; {}", serde_json::to_string(&verdict).unwrap());
    assert!(verdict.is_clean(), "{}", verdict.describe());
    assert_eq!((verdict.sessions, verdict.refused), (3 * AT_EACH, 0), "{}", verdict.describe());
    assert_eq!([verdict.announced, verdict.gaps, verdict.with_socket, verdict.away], [0; 4], "{}", verdict.describe());
    assert_eq!(verdict.closes.keys().collect::<Vec<_>>(), [&1001], "{}", verdict.describe());
    assert_eq!(moves.iter().max(), Some(&1), "a socket moved twice");
    // No less than the three gave away: rebalancing ends where no pod has much more than others.
    assert!(later.iter().all(|sockets| *sockets <= NEAR) && later[3] >= 4.0 * AVERAGE - 3.0 * NEAR, "{later:?}");
}
