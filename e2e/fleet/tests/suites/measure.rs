//! A fault under load, measured.

use std::time::Duration;

use anyhow::Result;
use daisi_ws_fleet::{
    containers::cluster::{Cluster, Options},
    faults::container,
    identity::Who,
    oracle::{fault_time::FaultTime, table, verdict::Verdict},
    traffic::load::Load,
};
use tokio::time::{Instant, sleep};

/// The load before a fault, and after it.
const BEFORE: Duration = Duration::from_secs(4);
const AFTER: Duration = Duration::from_secs(8);
/// The least that every session must have been owed a second, for the load to count as one. Outages during which nothing can be
/// stored are part of the time.
const LEAST_RATE: f64 = 20.0;
/// What one pod may have in its hands: what it has asked for, and what it has taken and not settled.
pub(crate) const IN_HAND: usize = 2 * 256;
/// Events a second for a newcomer.
const A_NEWCOMER: u32 = 30;

/// Runs a fault under the load and keeps what was measured as a row of the fault table. Nothing may be lost, doubled or
/// misdelivered, and everybody must have a socket in the end.
pub(crate) async fn measured(
    place: u32,
    fault: &str,
    options: Options,
    break_it: impl AsyncFnOnce(&mut Cluster, &mut Load) -> Result<FaultTime>,
) -> Verdict {
    let cluster = Cluster::start(options).await.unwrap();
    let load = Load::start(&cluster).await.unwrap();
    measured_with(place, fault, (cluster, load), break_it).await
}

/// The same under the load of clients that move when they are asked to.
pub(crate) async fn measured_moving(
    place: u32,
    fault: &str,
    options: Options,
    break_it: impl AsyncFnOnce(&mut Cluster, &mut Load) -> Result<FaultTime>,
) -> Verdict {
    let cluster = Cluster::start(options).await.unwrap();
    let load = Load::start_moving(&cluster).await.unwrap();
    measured_with(place, fault, (cluster, load), break_it).await
}

async fn measured_with(
    place: u32,
    fault: &str,
    (mut cluster, mut load): (Cluster, Load),
    break_it: impl AsyncFnOnce(&mut Cluster, &mut Load) -> Result<FaultTime>,
) -> Verdict {
    load.run(BEFORE).await;
    let time = break_it(&mut cluster, &mut load).await.unwrap();
    load.run(AFTER).await;
    load.everybody_is_connected().await.unwrap();
    let evidence = load.stop().await.unwrap();
    let verdict = Verdict::of(&evidence, Some(time));
    eprintln!("{fault}: {}", serde_json::to_string(&verdict).unwrap());
    table::keep(place, fault, &verdict).unwrap();
    assert!(verdict.is_clean(), "{fault}: {}", verdict.describe());
    assert!(verdict.sessions >= 60, "{}", verdict.describe());
    let stood_still = Duration::from_millis(verdict.worst_silence_ms);
    let expected = LEAST_RATE * (1.0 - (stood_still.as_secs_f64() / (evidence.ended - evidence.started).as_secs_f64()).min(0.9));
    assert!(verdict.rate >= expected, "the load was too small: {}", verdict.describe());
    // The fleet is whole again.
    cluster.ready().await.unwrap();
    verdict
}

/// When a fault that lasted from `began` until now happened.
pub(crate) fn until_now(began: Instant, stalls: bool) -> FaultTime {
    FaultTime { began, ended: Instant::now(), stalls, pod: None }
}

/// Freezes a container for so long.
pub(crate) async fn frozen(container: &str, length: Duration, stalls: bool) -> Result<FaultTime> {
    let began = Instant::now();
    container::freeze(container).await?;
    sleep(length).await;
    container::thaw(container).await?;
    Ok(until_now(began, stalls))
}

/// So many sessions, each the only one of an agent of its own and at one of these pods, in turn; and for each a publisher that
/// stores as much as those of the load do. Returned when all are ready.
pub(crate) async fn newcomers(cluster: &Cluster, load: &mut Load, count: usize, pods: &[usize]) -> Result<Vec<Who>> {
    let first = load.clients.len();
    let all: Vec<Who> = (first..first + count).map(|number| Who::alone(&format!("lone-{number}"))).collect();
    for who in &all {
        load.rush(who, A_NEWCOMER);
    }
    load.join(cluster, all.iter().cloned().zip(pods.iter().map(|pod| vec![*pod]).cycle())).await?;
    Ok(all)
}

/// The key of the route over which events for all sessions of a user's agent go.
pub(crate) fn route(who: &Who) -> String {
    let chats = who.chats().unwrap();
    format!("route:{}:{}:chats", chats.company, chats.agent)
}

/// No socket ended, and nothing was stored that a session had to do without.
pub(crate) fn no_session_noticed(verdict: &Verdict) {
    assert_eq!((verdict.closes.len(), verdict.away), (0, 0), "{}", verdict.describe());
}

/// Others were served as before while a pod was in trouble, but for so many events that it may have had in its hands.
pub(crate) fn others_were_spared(verdict: &Verdict, in_hand: usize) {
    assert!(verdict.others.is_the_same(), "others noticed: {}", verdict.describe());
    assert!(verdict.others.late <= in_hand, "more was late than the pod had in its hands: {}", verdict.describe());
}
