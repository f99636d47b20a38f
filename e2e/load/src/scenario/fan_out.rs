//! One event after another, each for all sockets: the next when all have the last.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    measured::{each, is_sound},
    side::Side,
    turns::Turns,
};
use crate::{
    client::{
        fleet::Clients,
        protocol::{Desks, Published, SetId},
    },
    proc::cpu::Cpu,
    publisher::Publisher,
    report::{Curve, Figure, Size},
    samples::Samples,
};

/// Events of a turn.
pub(super) const EVENTS: u32 = 10;
const TIMEOUT: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) micros: f64,
    /// Of all deliveries of the turn.
    cpu: Cpu,
    client_micros: f64,
    latency: Samples,
}

/// The sockets that an event is for, and how many events they got so far.
#[derive(Debug)]
pub(super) struct Audience {
    /// Their set.
    pub(super) set: SetId,
    /// How many they are, over all servers.
    pub(super) sockets: u32,
    /// Servers that they are spread over.
    pub(super) servers: usize,
    /// Events so far.
    pub(super) published: u32,
}

impl Audience {
    /// Publishes so many events for all of them at once. Returns when the first was sent.
    ///
    /// # Errors
    /// When NATS is gone.
    pub(super) async fn publish(&mut self, clients: &mut Clients, publisher: &mut Publisher, events: u32) -> Result<u64> {
        let desk = Desks::Shared.agent(0);
        let mut first = 0;
        for event in 0..events {
            let sent = publisher.publish(&desk, self.published).await?;
            first = if event == 0 { sent } else { first };
            self.published += 1;
        }
        let (before, now) = (Published::Each(self.published - events), Published::Each(self.published));
        clients.expect(self.sockets, self.servers, before, now);
        Ok(first)
    }

    /// Waits until all have what was published. Returns when the last of it was read.
    ///
    /// # Errors
    /// When some of it does not come.
    pub(super) async fn received(&self, clients: &mut Clients, at_most: Duration) -> Result<u64> {
        let received = clients.received(at_most).await?;
        ensure!(received.missing == 0, "{} deliveries are missing after {} s", received.missing, at_most.as_secs());
        Ok(received.last)
    }
}

/// Publishes the events of a turn and measures.
///
/// # Errors
/// When a delivery is lost or doubled, or a server is gone.
pub(super) async fn measure(side: &mut Side, audience: &mut Audience) -> Result<FanOut> {
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
pub(super) fn figures(size: Size, gateway: &Turns<FanOut>, floor: Option<&Turns<FanOut>>) -> Vec<Figure> {
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
pub(super) fn curve(server: &'static str, turns: &Turns<FanOut>) -> Option<Curve> {
    Some(super::measured::curve("fan-out", server, &turns.samples(|turn| &turn.latency)?))
}
