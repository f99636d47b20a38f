//! One event after another, each for all sockets: the next when all have the last.

use std::time::Duration;

use anyhow::Result;

use crate::{
    client::protocol::Published,
    conduct::{
        audience::Audience,
        figures::{each, is_sound},
        side::Side,
        turns::Turns,
    },
    proc::cpu::Cpu,
    report::{Curve, Figure, Size},
    samples::Samples,
};

/// Events of a turn.
pub(crate) const EVENTS: u32 = 10;
const TIMEOUT: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug)]
pub(crate) struct FanOut {
    pub(crate) micros: f64,
    /// Of all deliveries of the turn.
    cpu: Cpu,
    client_micros: f64,
    latency: Samples,
}

/// Publishes the events of a turn and measures.
///
/// # Errors
/// When a delivery is lost or doubled, or a server is gone.
pub(crate) async fn measure(side: &mut Side, audience: &mut Audience) -> Result<FanOut> {
    let Side { clients, servers, publisher, .. } = side;
    // The first event finds caches cold and buffers small.
    audience.publish(clients, publisher, 1).await?;
    audience.received(clients, TIMEOUT).await?;
    clients.reset().await?;
    let (clients_before, before) = (clients.cpu(), servers.cpu()?);
    for _ in 0..EVENTS {
        audience.publish(clients, publisher, 1).await?;
        audience.received(clients, TIMEOUT).await?;
    }
    let cpu = servers.cpu()? - before;
    let deliveries = u64::from(EVENTS) * u64::from(audience.sockets);
    let client_micros = each((clients.cpu() - clients_before).micros(), deliveries);
    publisher.confirmed().await?;
    let outcome = clients.report(audience.set, Published::Each(audience.published)).await?;
    is_sound("fan-out", servers, &outcome, u64::from(audience.sockets))?;
    Ok(FanOut { micros: each(cpu.micros(), deliveries), cpu, client_micros, latency: outcome.latency })
}

/// The figures of the gateway beside those of the floor.
pub(crate) fn figures(size: Size, gateway: &Turns<FanOut>, floor: Option<&Turns<FanOut>>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Turns<FanOut>) -> f64| size.figure("fan-out", name, unit, of(gateway), floor.map(of));
    vec![
        figure("CPU per delivery", "us", |turns| turns.middle(|turn| turn.micros)),
        figure("user CPU per delivery", "us", |turns| turns.middle(|turn| turn.micros) * user_share(turns)),
        figure("kernel CPU per delivery", "us", |turns| turns.middle(|turn| turn.micros) * (1.0 - user_share(turns))),
        figure("client CPU per delivery", "us", |turns| turns.middle(|turn| turn.client_micros)),
        figure("latency p50", "ms", |turns| turns.millis_at(0.5, |turn| &turn.latency)),
        figure("latency p99", "ms", |turns| turns.millis_at(0.99, |turn| &turn.latency)),
    ]
}

/// Of all turns together: one is too short for the clock's ticks.
fn user_share(turns: &Turns<FanOut>) -> f64 {
    turns.all().iter().map(|turn| turn.cpu).sum::<Cpu>().user_share()
}

/// Its latencies.
pub(crate) fn curve(server: &'static str, turns: &Turns<FanOut>) -> Option<Curve> {
    Some(crate::conduct::figures::curve("fan-out", server, &turns.samples(|turn| &turn.latency)?))
}
