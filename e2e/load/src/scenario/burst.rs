//! Thirty events at once, each for all sockets.

use std::time::Duration;

use anyhow::Result;

use super::{
    fan_out::Audience,
    measured::{each, is_sound, median, ratio, seconds},
};
use crate::{
    client::{fleet::Clients, protocol::Published},
    publisher::Publisher,
    report::{Curve, Figure, Size},
    samples::Samples,
    stage::servers::Servers,
};

/// Events of a burst.
const EVENTS: u32 = 30;
const TIMEOUT: Duration = Duration::from_secs(60);

/// What was measured.
#[derive(Debug)]
pub(super) struct Burst {
    micros: f64,
    millions_per_second: f64,
    latency: Samples,
    server: &'static str,
}

/// Publishes bursts, one when all have the last, and measures.
///
/// # Errors
/// When a delivery is lost or doubled, or a server is gone.
pub(super) async fn measure(
    clients: &mut Clients,
    servers: &Servers,
    publisher: &mut Publisher,
    audience: &mut Audience,
    bursts: u32,
) -> Result<Burst> {
    audience.publish(clients, publisher, EVENTS).await?;
    audience.received(clients, TIMEOUT).await?;
    clients.reset().await?;
    let (mut costs, mut rates) = (Vec::new(), Vec::new());
    let deliveries = u64::from(EVENTS) * u64::from(audience.sockets);
    let mut last = servers.cpu()?;
    for _ in 0..bursts {
        let first = audience.publish(clients, publisher, EVENTS).await?;
        let received = audience.received(clients, TIMEOUT).await?;
        publisher.confirmed().await?;
        let now = servers.cpu()?;
        costs.push(each((now - last).micros(), deliveries));
        rates.push(ratio(deliveries, 1) / seconds(first, received) / 1e6);
        last = now;
    }
    let outcome = clients.report(audience.set, Published::Each(audience.published)).await?;
    is_sound("burst", servers, &outcome, u64::from(audience.sockets))?;
    Ok(Burst { micros: median(costs), millions_per_second: median(rates), latency: outcome.latency, server: servers.name() })
}

/// The figures of the gateway beside those of the floor.
pub(super) fn figures(size: Size, gateway: &Burst, floor: Option<&Burst>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Burst) -> f64| size.figure("burst", name, unit, of(gateway), floor.map(of));
    vec![
        figure("deliveries", "million/s", |measured| measured.millions_per_second),
        figure("CPU per delivery", "us", |measured| measured.micros),
        figure("latency p99", "ms", |measured| measured.latency.millis_at(0.99)),
    ]
}

/// Its latencies.
pub(super) fn curve(measured: &Burst) -> Curve {
    super::measured::curve("burst", measured.server, &measured.latency)
}
