//! Many events a second, each for one socket: what an event costs, and how late it is.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::measured::{each, is_sound, ratio, seconds};
use crate::{
    client::{
        fleet::Clients,
        protocol::{Published, SetId},
    },
    clock,
    publisher::Publisher,
    report::{Curve, Figure, Size},
    samples::Samples,
    stage::{redis::Redis, servers::Servers},
};

/// The load before the measured one, so that caches are warm and connections open.
const WARM_UP: Duration = Duration::from_secs(1);
/// What is not delivered so long after it was published will not be.
const TIMEOUT: Duration = Duration::from_secs(60);
/// After the last delivery, until acknowledgements are through.
const SETTLING: Duration = Duration::from_millis(300);

/// How much is published, and to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// The set of the sockets, each on a desk of its own.
    pub(super) set: SetId,
    /// How many they are.
    pub(super) sockets: u32,
    /// Events a second.
    pub(super) rate: u32,
    /// For so long.
    pub(super) length: Duration,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Spread {
    pub(super) micros: f64,
    pub(super) latency: Samples,
    per_second: f64,
    redis_micros: Option<f64>,
    server: &'static str,
}

/// Publishes and measures. `begin` is called when the servers are warm; what it gives comes back with what was measured.
///
/// # Errors
/// When a delivery is lost or doubled, or a server is gone.
pub(super) async fn measure<T>(
    clients: &mut Clients,
    servers: &Servers,
    redis: Option<&Redis>,
    publisher: &mut Publisher,
    load: Load,
    begin: impl FnOnce() -> Result<T>,
) -> Result<(Spread, T)> {
    let warm = publisher.spread(0, load.sockets, load.rate, WARM_UP).await?;
    received(clients, load, 0, warm).await?;
    clients.reset().await?;
    let begun = begin()?;
    let (cpu, redis_cpu, began) = (servers.cpu()?, redis.and_then(Redis::cpu), clock::nanos());
    let events = publisher.spread(warm, load.sockets, load.rate, load.length).await?;
    let per_second = ratio(events, 1) / seconds(began, clock::nanos());
    received(clients, load, warm, warm + events).await?;
    publisher.confirmed().await?;
    sleep(SETTLING).await;
    let micros = each((servers.cpu()? - cpu).micros(), events);
    let redis_micros = redis.and_then(Redis::cpu).zip(redis_cpu).map(|(after, before)| each((after - before).micros(), events));
    let published = Published::InTurn { events: warm + events, sockets: load.sockets };
    let outcome = clients.report(load.set, published).await?;
    is_sound("spread", servers, &outcome, u64::from(load.sockets))?;
    Ok((Spread { micros, latency: outcome.latency, per_second, redis_micros, server: servers.name() }, begun))
}

async fn received(clients: &mut Clients, load: Load, before: u64, now: u64) -> Result<()> {
    let published = |events| Published::InTurn { events, sockets: load.sockets };
    clients.expect(load.sockets, 1, published(before), published(now));
    let missing = clients.received(TIMEOUT).await?.missing;
    ensure!(missing == 0, "{missing} events are missing after {} s", TIMEOUT.as_secs());
    Ok(())
}

/// The figures of the gateway beside those of the floor.
pub(super) fn figures(size: Size, gateway: &Spread, floor: Option<&Spread>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Spread) -> f64| size.figure("spread", name, unit, of(gateway), floor.map(of));
    let mut figures = vec![
        figure("CPU per event", "us", |measured| measured.micros),
        figure("latency p50", "ms", |measured| measured.latency.millis_at(0.5)),
        figure("latency p95", "ms", |measured| measured.latency.millis_at(0.95)),
        figure("latency p99", "ms", |measured| measured.latency.millis_at(0.99)),
        figure("rate", "1/s", |measured| measured.per_second),
    ];
    figures.extend(gateway.redis_micros.map(|micros| size.figure("spread", "Redis CPU per event", "us", micros, None)));
    figures
}

/// The figures of the gateway beside those of a floor that takes events from a durable consumer and acknowledges them: what is above that is the gateway's own.
pub(super) fn beside_a_durable(size: Size, gateway: &Spread, durable: &Spread) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Spread) -> f64| size.figure("spread", name, unit, of(gateway), Some(of(durable)));
    vec![
        figure("CPU per event, floor on a durable", "us", |measured| measured.micros),
        figure("latency p50, floor on a durable", "ms", |measured| measured.latency.millis_at(0.5)),
        figure("latency p95, floor on a durable", "ms", |measured| measured.latency.millis_at(0.95)),
        figure("latency p99, floor on a durable", "ms", |measured| measured.latency.millis_at(0.99)),
    ]
}

/// Its latencies.
pub(super) fn curve(measured: &Spread) -> Curve {
    super::measured::curve("spread", measured.server, &measured.latency)
}
