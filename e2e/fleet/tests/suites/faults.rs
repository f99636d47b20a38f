//! Every row of the fault table, under load.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use daisi_ws_fleet::{
    containers::{
        cluster::{Cluster, Options},
        pod::{API_KEY, Pod},
    },
    faults::container,
    identity::Who,
    oracle::{fault_time::FaultTime, verdict::Verdict},
    proxy::Mode,
    traffic::{client, load::Load},
};
use daisi_ws_testbed::wait;
use tokio::time::{Instant, sleep};

use crate::measure::{IN_HAND, frozen, measured, measured_moving, no_session_noticed, others_were_spared, until_now};

/// Long enough for every time-out that matters (breaker, liveness key, readiness, ack wait).
const LONG: Duration = Duration::from_secs(15);
/// Shorter than the ack wait and longer than a liveness key lives.
const SHORT: Duration = Duration::from_secs(6);
/// Longest wait for what a fault should show.
const SOON: Duration = Duration::from_secs(15);
/// New sessions are refused within this time while Redis is away. Promised is a second; the machine has other work.
const REFUSED: Duration = Duration::from_secs(2);
/// Milliseconds without an event, in the worst case, of a session that moves.
const NOTICED: u64 = 1000;

fn newcomer() -> Who {
    Who::User { company: "acme".into(), agent: "agent-0".into(), user: "newcomer".into(), chat: None }
}

/// A new session at this pod: the status of its refusal, or none if it was let in.
async fn refused(cluster: &Cluster, pod: usize, token: &str) -> Option<u16> {
    client::refusal(cluster.pods[pod].http().unwrap(), &client::path(&newcomer()), token, API_KEY).await
}

/// Redis is away at these pods: sockets stay, new sessions get 503 soon, and `/ready` says so. And then they are let in again.
async fn redis_is_away(cluster: &Cluster, pods: &[usize], token: &str) {
    for pod in pods {
        // What is refused first may have waited for the time-out of a command on a connection that was good until now.
        wait::until("new sessions are refused", SOON, || async { refused(cluster, *pod, token).await == Some(503) })
            .await
            .unwrap();
        let started = Instant::now();
        assert_eq!(refused(cluster, *pod, token).await, Some(503));
        assert!(started.elapsed() < REFUSED, "refused after {:?}", started.elapsed());
        assert_eq!(cluster.pods[*pod].status("/health").await, Some(200));
        wait::until("/ready says 503", SOON, || async { cluster.pods[*pod].status("/ready").await == Some(503) }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn redis_killed_and_back_empty() {
    let fault = "Redis killed, back empty after 8 s";
    let verdict = measured(10, fault, Options::pods(3), async |cluster, _| {
        let token = cluster.pods[0].token(&newcomer()).await?;
        let began = Instant::now();
        container::kill(&cluster.redis).await?;
        redis_is_away(cluster, &[0, 1, 2], &token).await;
        sleep((began + Duration::from_secs(8)).saturating_duration_since(Instant::now())).await;
        container::start(&cluster.redis).await?;
        let time = until_now(began, false);
        wait::until("new sessions are let in", SOON, || async { refused(cluster, 0, &token).await.is_none() }).await?;
        Ok(time)
    })
    .await;
    no_session_noticed(&verdict);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn redis_frozen() {
    let verdict = measured(11, "Redis frozen for 15 s", Options::pods(3), async |cluster, _| {
        let token = cluster.pods[0].token(&newcomer()).await?;
        let began = Instant::now();
        container::freeze(&cluster.redis).await?;
        redis_is_away(cluster, &[0, 1, 2], &token).await;
        sleep((began + LONG).saturating_duration_since(Instant::now())).await;
        container::thaw(&cluster.redis).await?;
        let time = until_now(began, false);
        wait::until("new sessions are let in", SOON, || async { refused(cluster, 0, &token).await.is_none() }).await?;
        Ok(time)
    })
    .await;
    no_session_noticed(&verdict);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn redis_restarted() {
    let verdict = measured(12, "Redis restarted, back empty at once", Options::pods(3), async |cluster, _| {
        let began = Instant::now();
        container::restart(&cluster.redis).await?;
        Ok(until_now(began, false))
    })
    .await;
    no_session_noticed(&verdict);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn nats_killed_and_restarted() {
    let verdict = measured(20, "NATS killed, back after 6 s", Options::pods(3), async |cluster, _| {
        let token = cluster.pods[0].token(&newcomer()).await?;
        let began = Instant::now();
        container::kill(&cluster.nats).await?;
        assert_eq!(refused(cluster, 1, &token).await, None, "sessions can be had while NATS is away");
        sleep(SHORT).await;
        assert_eq!(cluster.pods[0].status("/health").await, Some(200));
        assert_eq!(cluster.pods[0].status("/ready").await, Some(503));
        container::start(&cluster.nats).await?;
        Ok(until_now(began, false))
    })
    .await;
    assert_eq!((verdict.closes.len(), verdict.away, verdict.gaps), (0, 0, 0), "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn nats_frozen() {
    let verdict =
        measured(21, "NATS frozen for 6 s", Options::pods(3), async |cluster, _| frozen(&cluster.nats, SHORT, false).await).await;
    assert_eq!((verdict.closes.len(), verdict.away, verdict.gaps), (0, 0, 0), "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn nats_restarted() {
    let verdict = measured(22, "NATS restarted", Options::pods(3), async |cluster, _| {
        let began = Instant::now();
        container::restart(&cluster.nats).await?;
        Ok(until_now(began, false))
    })
    .await;
    assert_eq!((verdict.closes.len(), verdict.away, verdict.gaps), (0, 0, 0), "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_killed() {
    let verdict = measured(30, "Pod killed, started again after 15 s", Options::pods(3), async |cluster, load| {
        let began = Instant::now();
        container::kill(&cluster.pods[1].container).await?;
        let time = until_now(began, false).at(1);
        // Its sessions are taken over elsewhere, long before their locks run out.
        load.everybody_is_connected().await?;
        sleep((began + LONG).saturating_duration_since(Instant::now())).await;
        container::start_pod(&cluster.pods[1]).await?;
        Ok(time)
    })
    .await;
    // Only its own sockets ended: a third of all.
    assert_eq!(verdict.closes.values().sum::<usize>(), 21, "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_frozen_for_long() {
    measured(31, "Pod frozen for 15 s", Options::pods(3), async |cluster, _| {
        Ok(frozen(&cluster.pods[1].container, LONG, true).await?.at(1))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_frozen_for_a_moment() {
    let verdict = measured(32, "Pod frozen for 2 s", Options::pods(3), async |cluster, _| {
        Ok(frozen(&cluster.pods[1].container, Duration::from_secs(2), true).await?.at(1))
    })
    .await;
    assert_eq!(verdict.closes.len(), 0, "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_cut_off_from_all() {
    measured(33, "Pod cut off from everything for 15 s", Options::pods(3), async |cluster, _| {
        let began = Instant::now();
        cluster.cut_off(&cluster.pods[1]).await?;
        sleep(LONG).await;
        cluster.bring_back(&cluster.pods[1]).await?;
        Ok(until_now(began, true).at(1))
    })
    .await;
}

/// One pod's link to Redis is like this for a while: it alone refuses new sessions, and no session notices.
async fn redis_link_broken(place: u32, fault: &str, mode: Mode) {
    let verdict = measured(place, fault, Options::pods(3), async |cluster, _| {
        let token = cluster.pods[0].token(&newcomer()).await?;
        let began = Instant::now();
        cluster.redis_link(&cluster.pods[1], mode);
        redis_is_away(cluster, &[1], &token).await;
        assert_eq!(refused(cluster, 0, &token).await, None, "others take new sessions");
        sleep((began + LONG).saturating_duration_since(Instant::now())).await;
        cluster.heal();
        Ok(until_now(began, false).at(1))
    })
    .await;
    no_session_noticed(&verdict);
    others_were_spared(&verdict, IN_HAND);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_stalled_to_redis_only() {
    redis_link_broken(40, "Pod's link to Redis half-open for 15 s", Mode::Stall).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_cut_off_from_redis_only() {
    redis_link_broken(41, "Pod's link to Redis cut for 15 s", Mode::Cut).await;
}

/// What this does to links of one pod is done for so long: no session notices.
async fn links_broken(place: u32, fault: &str, length: Duration, break_them: impl Fn(&Cluster, &Pod) -> Result<()>) -> Verdict {
    let verdict = measured(place, fault, Options::pods(3), async |cluster, _| {
        let began = Instant::now();
        break_them(cluster, &cluster.pods[1])?;
        sleep(length).await;
        cluster.heal();
        Ok(until_now(began, false).at(1))
    })
    .await;
    no_session_noticed(&verdict);
    others_were_spared(&verdict, IN_HAND);
    verdict
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_cut_off_from_peers_for_a_moment() {
    let cut = |cluster: &Cluster, pod: &Pod| cluster.peer_links(pod, Mode::Cut);
    let verdict = links_broken(49, "Pod's links to its peers cut for 1 s", Duration::from_secs(1), cut).await;
    // What was meant for the other side of the cut was parked, and there was room for it: it came late, and no gap was needed.
    assert_eq!(verdict.announced, 0, "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_cut_off_from_peers_only() {
    let cut = |cluster: &Cluster, pod: &Pod| cluster.peer_links(pod, Mode::Cut);
    links_broken(50, "Pod's links to its peers cut for 6 s", SHORT, cut).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_stalled_to_peers_only() {
    let stall = |cluster: &Cluster, pod: &Pod| cluster.peer_links(pod, Mode::Stall);
    links_broken(51, "Pod's links to its peers half-open for 15 s", LONG, stall).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn peers_and_redis_slow() {
    const LATER: Mode = Mode::Delay(Duration::from_millis(100));
    let slow = |cluster: &Cluster, pod: &Pod| {
        cluster.redis_link(pod, LATER);
        cluster.peer_links(pod, LATER)
    };
    let fault = "Pod's links to Redis and peers 100 ms slower each way for 10 s";
    links_broken(52, fault, Duration::from_secs(10), slow).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn poison_events() {
    const POISON: [(&str, &[u8]); 5] = [
        ("wa.acme.agent-0.chats", b"no JSON"),
        ("wa.acme.agent-0.chats", b"[1,2]"),
        ("wa.acme.agent-0.chats", b""),
        ("wa.acme.nobody-knows.this.subject", b"{}"),
        ("wa.acme", b"{}"),
    ];
    let verdict = measured(70, "100 poison events among the others", Options::pods(3), async |_, load| {
        let began = Instant::now();
        for _ in 0..20 {
            for (subject, payload) in POISON {
                load.publisher.store_raw(subject, payload).await?;
            }
        }
        Ok(until_now(began, false))
    })
    .await;
    no_session_noticed(&verdict);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pod_terminated() {
    let verdict = measured(80, "SIGTERM to a pod, started again", Options::pods(3), async |cluster, _| {
        let began = Instant::now();
        cluster.pods[1].signal("TERM").await?;
        assert_eq!(cluster.pods[1].exit_code().await?, 0);
        let time = until_now(began, false).at(1);
        container::start_pod(&cluster.pods[1]).await?;
        Ok(time)
    })
    .await;
    assert_eq!(verdict.closes.keys().collect::<Vec<_>>(), [&1001], "{}", verdict.describe());
}

/// Restarts the pods one after another, each when the one before is ready again and everybody has a socket.
async fn restart_in_turn(cluster: &Cluster, load: &Load) -> Result<FaultTime> {
    let began = Instant::now();
    for pod in &cluster.pods {
        container::restart(&pod.container).await?;
        pod.find().await?;
        pod.ready().await?;
        load.everybody_is_connected().await?;
    }
    Ok(until_now(began, false))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn rolling_restart() {
    let fault = "Rolling restart of all pods";
    let verdict = measured(81, fault, Options::pods(3), async |cluster, load| restart_in_turn(cluster, load).await).await;
    assert_eq!(verdict.closes.keys().collect::<Vec<_>>(), [&1001], "{}", verdict.describe());
    assert_eq!(verdict.moves.moved, 0, "nobody was asked to: {}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn rolling_restart_of_clients_that_move() {
    let fault = "Rolling restart, clients that move";
    let verdict = measured_moving(82, fault, Options::pods(3), async |cluster, load| restart_in_turn(cluster, load).await).await;
    // The first pod's sockets go to the second, those of both to the third, and all to the first again.
    assert_eq!((verdict.moves.moved, &verdict.closes), (126, &BTreeMap::from([(1001, 126)])), "{}", verdict.describe());
    let missed = [verdict.announced, verdict.gaps, verdict.with_socket, verdict.away];
    assert_eq!((missed, verdict.refused), ([0; 4], 0), "{}", verdict.describe());
    assert!(verdict.worst_silence_ms <= NOTICED, "{}", verdict.describe());
    assert!(verdict.moves.are_smooth(), "{}", verdict.describe());
}
