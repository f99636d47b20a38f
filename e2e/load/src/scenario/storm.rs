//! All sockets drop, as when a load balancer is restarted, and come back at once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use tokio::time::sleep;

use super::measured::{each, ratio, seconds};
use crate::{
    client::{
        fleet::{Clients, Wish},
        protocol::Published,
    },
    clock,
    report::{Curve, Figure, Size},
    samples::Samples,
    stage::{redis::Redis, servers::Servers},
};

/// After the last `ready`, until what the old sockets left to do is done.
const SETTLING: Duration = Duration::from_millis(500);

/// What was measured.
#[derive(Debug)]
pub(super) struct Storm {
    seconds: f64,
    pod_micros: f64,
    redis_micros: Option<f64>,
    /// How many did not come back, by why.
    refused: BTreeMap<String, u64>,
    ready_in: Samples,
    server: &'static str,
}

/// Drops the sockets of `old`, opens those of `wish`, and measures.
///
/// # Errors
/// When a server is gone.
pub(super) async fn measure(
    clients: &mut Clients,
    servers: &Servers,
    redis: Option<&Redis>,
    old: u32,
    wish: &Wish<'_>,
) -> Result<Storm> {
    let (cpu, redis_cpu, began) = (servers.cpu()?, redis.and_then(Redis::cpu), clock::nanos());
    clients.drop_all(old).await?;
    let ended = clients.open(wish).await?;
    sleep(SETTLING).await;
    let sockets = u64::from(wish.count);
    let pod_micros = each((servers.cpu()? - cpu).micros(), sockets);
    let redis_micros = redis.and_then(Redis::cpu).zip(redis_cpu).map(|(after, before)| each((after - before).micros(), sockets));
    let outcome = clients.report(wish.set, Published::Each(0)).await?;
    Ok(Storm {
        seconds: seconds(began, ended),
        pod_micros,
        redis_micros,
        refused: outcome.counts.refused,
        ready_in: outcome.ready_in,
        server: servers.name(),
    })
}

/// The figures of the gateway beside those of the floor.
pub(super) fn figures(size: Size, gateway: &Storm, floor: Option<&Storm>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Storm) -> f64| size.figure("storm", name, unit, of(gateway), floor.map(of));
    let mut figures = vec![
        figure("time until all are ready", "s", |measured| measured.seconds),
        figure("pod CPU per connect", "us", |measured| measured.pod_micros),
        figure("p99 from connect to ready", "ms", |measured| measured.ready_in.millis_at(0.99)),
        figure("refused", "", |measured| ratio(measured.refused.values().sum(), 1)),
    ];
    figures.extend(gateway.redis_micros.map(|micros| size.figure("storm", "Redis CPU per connect", "us", micros, None)));
    figures
}

/// Why some did not come back.
pub(super) fn note(measured: &Storm) -> Option<String> {
    let Storm { refused, server, .. } = measured;
    (!refused.is_empty()).then(|| format!("storm: the {server} refused {refused:?}"))
}

/// Its times to `ready`.
pub(super) fn curve(measured: &Storm) -> Curve {
    super::measured::curve("storm", measured.server, &measured.ready_in)
}
