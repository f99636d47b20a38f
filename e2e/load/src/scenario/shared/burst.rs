//! Thirty events at once, each for all sockets.

use std::time::Duration;

use anyhow::Result;

use crate::{
    client::protocol::Published,
    conduct::{
        audience::Audience,
        figures::{each, is_sound, ratio, seconds},
        side::Side,
        turns::Turns,
    },
    report::{Curve, Figure, Size},
    samples::Samples,
};

/// Events of a burst.
const EVENTS: u32 = 30;
const TIMEOUT: Duration = Duration::from_secs(60);

/// What was measured.
#[derive(Debug)]
pub(crate) struct Burst {
    micros: f64,
    millions_per_second: f64,
    latency: Samples,
}

/// Publishes a burst that warms up and, when all have it, one that is measured.
///
/// # Errors
/// When a delivery is lost or doubled, or a server is gone.
pub(crate) async fn measure(side: &mut Side, audience: &mut Audience) -> Result<Burst> {
    let Side { clients, servers, publisher, .. } = side;
    audience.publish(clients, publisher, EVENTS).await?;
    audience.received(clients, TIMEOUT).await?;
    publisher.confirmed().await?;
    clients.reset().await?;
    let cpu = servers.cpu()?;
    let first = audience.publish(clients, publisher, EVENTS).await?;
    let received = audience.received(clients, TIMEOUT).await?;
    publisher.confirmed().await?;
    let deliveries = u64::from(EVENTS) * u64::from(audience.sockets);
    let micros = each((servers.cpu()? - cpu).micros(), deliveries);
    let millions_per_second = ratio(deliveries, 1) / seconds(first, received) / 1e6;
    let outcome = clients.report(audience.set, Published::Each(audience.published)).await?;
    is_sound("burst", servers, &outcome, u64::from(audience.sockets))?;
    Ok(Burst { micros, millions_per_second, latency: outcome.latency })
}

/// The figures of the gateway beside those of the floor.
pub(crate) fn figures(size: Size, gateway: &Turns<Burst>, floor: Option<&Turns<Burst>>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Turns<Burst>) -> f64| size.figure("burst", name, unit, of(gateway), floor.map(of));
    vec![
        figure("deliveries", "million/s", |turns| turns.middle(|turn| turn.millions_per_second)),
        figure("CPU per delivery", "us", |turns| turns.middle(|turn| turn.micros)),
        figure("latency p99", "ms", |turns| turns.millis_at(0.99, |turn| &turn.latency)),
    ]
}

/// Its latencies.
pub(crate) fn curve(server: &'static str, turns: &Turns<Burst>) -> Option<Curve> {
    Some(crate::conduct::figures::curve("burst", server, &turns.samples(|turn| &turn.latency)?))
}
