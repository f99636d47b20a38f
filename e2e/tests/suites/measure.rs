//! A fault under load, measured.

use std::time::Duration;

use anyhow::Result;
use daisi_ws_e2e::{
    cluster::{Cluster, Options},
    load::Load,
    oracle::{FaultTime, Verdict},
    report,
};
use tokio::time::Instant;

/// The load before a fault, and after it.
const BEFORE: Duration = Duration::from_secs(4);
const AFTER: Duration = Duration::from_secs(8);
/// The least that every session must have been owed a second, for the load to count as one. Outages during which nothing can be stored
/// are part of the time.
const LEAST_RATE: f64 = 20.0;

/// Runs a fault under the load and keeps what was measured as a row of the fault table. Nothing may be lost, doubled or misdelivered, and
/// everybody must have a socket in the end.
pub(crate) async fn measured(
    (place, fault): (u32, &str),
    options: Options,
    break_it: impl AsyncFnOnce(&Cluster, &Load) -> Result<FaultTime>,
) -> Verdict {
    let cluster = Cluster::start(options).await.unwrap();
    let load = Load::start(&cluster).await.unwrap();
    load.run(BEFORE).await;
    let time = break_it(&cluster, &load).await.unwrap();
    load.run(AFTER).await;
    load.everybody_is_connected().await.unwrap();
    let evidence = load.stop().await.unwrap();
    let verdict = Verdict::of(&evidence, Some(time));
    eprintln!("{fault}: {}", serde_json::to_string(&verdict).unwrap());
    report::keep(place, fault, &verdict).unwrap();
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
    FaultTime { began, ended: Instant::now(), stalls }
}
