//! Many events a second, each for one socket: what an event costs, and how late it is.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    client::{
        fleet::Clients,
        protocol::{Published, SetId},
    },
    clock,
    conduct::{
        figures::{each, is_sound, ratio, seconds},
        side::Side,
        turns::Turns,
    },
    report::{Curve, Figure, Size},
    samples::Samples,
    stage::redis::Redis,
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
    /// From an event to the publisher's word that the stream has it.
    stored: Samples,
    per_second: f64,
    redis_micros: Option<f64>,
}

/// Publishes and measures. `before` events were published in earlier turns; returns how many are now. `begin` is called when the
/// servers are warm, and what it gives comes back with what was measured.
///
/// # Errors
/// When a delivery is lost or doubled, or a server is gone.
pub(super) async fn measure<T>(
    side: &mut Side,
    load: Load,
    before: u64,
    begin: impl AsyncFnOnce(&Side) -> Result<T>,
) -> Result<(Spread, u64, T)> {
    let length = side.unless_hurried(WARM_UP);
    let warm = before + side.publisher.spread(before, load.sockets, load.rate, length).await?;
    received(&mut side.clients, load, before, warm).await?;
    side.publisher.confirmed().await?;
    side.publisher.take_confirmed_after()?;
    side.clients.reset().await?;
    let begun = begin(side).await?;
    let redis_cpu = |side: &Side| side.redis().and_then(Redis::cpu);
    let (cpu, redis, began) = (side.servers.cpu()?, redis_cpu(side), clock::nanos());
    let events = side.publisher.spread(warm, load.sockets, load.rate, load.length).await?;
    let per_second = ratio(events, 1) / seconds(began, clock::nanos());
    received(&mut side.clients, load, warm, warm + events).await?;
    side.publisher.confirmed().await?;
    let stored = side.publisher.take_confirmed_after()?;
    side.settle(SETTLING).await;
    let micros = each((side.servers.cpu()? - cpu).micros(), events);
    let redis_micros = redis_cpu(side).zip(redis).map(|(after, before)| each((after - before).micros(), events));
    let published = Published::InTurn { events: warm + events, sockets: load.sockets };
    let outcome = side.clients.report(load.set, published).await?;
    is_sound("spread", &side.servers, &outcome, u64::from(load.sockets))?;
    Ok((Spread { micros, latency: outcome.latency, stored, per_second, redis_micros }, warm + events, begun))
}

async fn received(clients: &mut Clients, load: Load, before: u64, now: u64) -> Result<()> {
    let published = |events| Published::InTurn { events, sockets: load.sockets };
    clients.expect(load.sockets, 1, published(before), published(now));
    let missing = clients.received(TIMEOUT).await?.missing;
    ensure!(missing == 0, "{missing} events are missing after {} s", TIMEOUT.as_secs());
    Ok(())
}

/// The latency of a quantile, over all turns.
pub(super) fn millis_at(quantile: f64, turns: &Turns<Spread>) -> f64 {
    turns.millis_at(quantile, |turn| &turn.latency)
}

/// As [`millis_at`], until the publisher is told that the stream has an event: what of a latency is the stream's.
pub(super) fn confirmed_at(quantile: f64, turns: &Turns<Spread>) -> f64 {
    turns.millis_at(quantile, |turn| &turn.stored)
}

/// The figures of the gateway beside those of the floor.
pub(super) fn figures(size: Size, gateway: &Turns<Spread>, floor: Option<&Turns<Spread>>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Turns<Spread>) -> f64| size.figure("spread", name, unit, of(gateway), floor.map(of));
    let mut figures = vec![
        figure("CPU per event", "us", |turns| turns.middle(|turn| turn.micros)),
        figure("latency p50", "ms", |turns| millis_at(0.5, turns)),
        figure("latency p95", "ms", |turns| millis_at(0.95, turns)),
        figure("latency p99", "ms", |turns| millis_at(0.99, turns)),
        figure("until the stream confirms, p95", "ms", |turns| confirmed_at(0.95, turns)),
        figure("until the stream confirms, p99", "ms", |turns| confirmed_at(0.99, turns)),
        figure("rate", "1/s", |turns| turns.middle(|turn| turn.per_second)),
    ];
    let redis_micros = gateway.middle_of_some(|turn| turn.redis_micros);
    figures.extend(redis_micros.map(|micros| size.figure("spread", "Redis CPU per event", "us", micros, None)));
    figures
}

/// The figures of the gateway beside those of a floor that takes events from a durable consumer and acknowledges them: what is
/// above that is the gateway's own.
pub(super) fn beside_a_durable(size: Size, gateway: &Turns<Spread>, durable: &Turns<Spread>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Turns<Spread>) -> f64| size.figure("spread", name, unit, of(gateway), Some(of(durable)));
    vec![
        figure("CPU per event, floor on a durable", "us", |turns| turns.middle(|turn| turn.micros)),
        figure("latency p50, floor on a durable", "ms", |turns| millis_at(0.5, turns)),
        figure("latency p95, floor on a durable", "ms", |turns| millis_at(0.95, turns)),
        figure("latency p99, floor on a durable", "ms", |turns| millis_at(0.99, turns)),
        figure("until the stream confirms, p99, floor on a durable", "ms", |turns| confirmed_at(0.99, turns)),
    ]
}

/// The latencies of this load.
pub(super) fn curve(scenario: &'static str, server: &'static str, turns: &Turns<Spread>) -> Option<Curve> {
    Some(crate::conduct::figures::curve(scenario, server, &turns.samples(|turn| &turn.latency)?))
}
