//! What a connect costs: CPU of pod and Redis, Redis commands, time to `ready`.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::measured::{each, is_sound, ratio, seconds};
use crate::{
    client::{
        fleet::{Clients, Wish},
        protocol::Published,
    },
    clock,
    report::{Figure, Size},
    stage::{redis::Redis, servers::Servers},
};

/// After the last `ready`, until what a connect leaves to do is done.
const SETTLING: Duration = Duration::from_millis(500);

/// What was measured.
#[derive(Debug)]
pub(super) struct Connects {
    pub(super) pod_micros: f64,
    redis_micros: Option<f64>,
    redis_calls: Option<f64>,
    per_second: f64,
    p99_millis: f64,
}

/// Opens the sockets and measures that.
///
/// # Errors
/// When one does not get ready, or a server is gone.
pub(super) async fn measure(
    clients: &mut Clients,
    servers: &Servers,
    redis: Option<&Redis>,
    wish: &Wish<'_>,
) -> Result<Connects> {
    let redis_calls = || redis.map(Redis::calls).transpose();
    let (cpu, redis_cpu, calls) = (servers.cpu()?, redis.and_then(Redis::cpu), redis_calls()?);
    let began = clock::nanos();
    let ended = clients.open(wish).await?;
    sleep(SETTLING).await;
    let sockets = u64::from(wish.count);
    let pod_micros = each((servers.cpu()? - cpu).micros(), sockets);
    let redis_micros = redis.and_then(Redis::cpu).zip(redis_cpu).map(|(after, before)| each((after - before).micros(), sockets));
    let redis_calls = redis_calls()?.zip(calls).map(|(after, before)| {
        let sum = |calls: std::collections::BTreeMap<String, u64>| calls.values().sum::<u64>();
        ratio(sum(after) - sum(before), sockets)
    });
    let outcome = clients.report(wish.set, Published::Each(0)).await?;
    is_sound("connect", servers, &outcome, sockets)?;
    let per_second = ratio(sockets, 1) / seconds(began, ended);
    Ok(Connects { pod_micros, redis_micros, redis_calls, per_second, p99_millis: outcome.ready_in.millis_at(0.99) })
}

/// The figures of the gateway beside those of the floor.
pub(super) fn figures(size: Size, gateway: &Connects, floor: Option<&Connects>) -> Vec<Figure> {
    let figure = |name, unit, value, floor| size.figure("connect", name, unit, value, floor);
    let mut figures = vec![figure("pod CPU per connect", "us", gateway.pod_micros, floor.map(|floor| floor.pod_micros))];
    figures.extend(gateway.redis_micros.map(|micros| figure("Redis CPU per connect", "us", micros, None)));
    figures.extend(gateway.redis_calls.map(|calls| figure("Redis commands per connect", "", calls, None)));
    figures.push(figure("rate", "1/s", gateway.per_second, floor.map(|floor| floor.per_second)));
    figures.push(figure("p99 from connect to ready", "ms", gateway.p99_millis, floor.map(|floor| floor.p99_millis)));
    figures
}
