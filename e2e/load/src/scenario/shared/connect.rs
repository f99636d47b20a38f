//! What a connect costs: CPU of pod and Redis, Redis commands, time to `ready`.

use std::time::Duration;

use anyhow::Result;

use crate::{
    client::protocol::Published,
    clock,
    conduct::{
        figures::{each, is_sound, ratio, seconds},
        side::{Group, Side},
        turns::Turns,
    },
    report::{Figure, Size},
    stage::redis::Redis,
};

/// After the last `ready`, until what a connect leaves to do is done.
const SETTLING: Duration = Duration::from_millis(500);

/// What was measured.
#[derive(Debug)]
pub(crate) struct Connects {
    pub(crate) pod_micros: f64,
    redis_micros: Option<f64>,
    redis_calls: Option<f64>,
    per_second: f64,
    p99_millis: f64,
}

/// Opens the sockets and measures that.
///
/// # Errors
/// When one does not get ready, or a server is gone.
pub(crate) async fn measure(side: &mut Side, group: Group) -> Result<Connects> {
    let redis_cpu = |side: &Side| side.redis().and_then(Redis::cpu);
    let (cpu, redis, calls) = (side.servers.cpu()?, redis_cpu(side), redis_calls(side).await?);
    let began = clock::nanos();
    let ended = side.open(group).await?;
    side.settle(SETTLING).await;
    let sockets = u64::from(group.count);
    let pod_micros = each((side.servers.cpu()? - cpu).micros(), sockets);
    let redis_micros = redis_cpu(side).zip(redis).map(|(after, before)| each((after - before).micros(), sockets));
    let redis_calls = redis_calls(side).await?.zip(calls).map(|(after, before)| ratio(after - before, sockets));
    let outcome = side.clients.report(group.set, Published::Each(0)).await?;
    is_sound("connect", &side.servers, &outcome, sockets)?;
    let per_second = ratio(sockets, 1) / seconds(began, ended);
    Ok(Connects { pod_micros, redis_micros, redis_calls, per_second, p99_millis: outcome.ready_in.millis_at(0.99) })
}

/// Redis commands so far; none at a floor.
async fn redis_calls(side: &Side) -> Result<Option<u64>> {
    match side.redis() {
        Some(redis) => Ok(Some(redis.calls().await?.values().sum())),
        None => Ok(None),
    }
}

/// The figures of the gateway beside those of the floor.
pub(crate) fn figures(size: Size, gateway: &Turns<Connects>, floor: Option<&Turns<Connects>>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Connects) -> f64| {
        size.figure("connect", name, unit, gateway.middle(of), floor.map(|floor| floor.middle(of)))
    };
    let of_redis = |name, unit, value: Option<f64>| value.map(|value| size.figure("connect", name, unit, value, None));
    let mut figures = vec![figure("pod CPU per connect", "us", |turn| turn.pod_micros)];
    figures.extend(of_redis("Redis CPU per connect", "us", gateway.middle_of_some(|turn| turn.redis_micros)));
    figures.extend(of_redis("Redis commands per connect", "", gateway.middle_of_some(|turn| turn.redis_calls)));
    figures.push(figure("rate", "1/s", |turn| turn.per_second));
    figures.push(figure("p99 from connect to ready", "ms", |turn| turn.p99_millis));
    figures
}
