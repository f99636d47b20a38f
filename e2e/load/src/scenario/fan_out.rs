//! One event after another, each for all sockets: the next when all have the last.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::measured::{each, is_sound, median};
use crate::{
    client::{
        fleet::Clients,
        protocol::{Desks, Published, SetId},
    },
    publisher::Publisher,
    report::{Curve, Figure, Size},
    samples::Samples,
    stage::servers::Servers,
};

/// Events that one reading of the CPU time is for; of the readings, the middle one counts, so that what else the machine does disturbs little.
const BLOCK: u32 = 10;
const TIMEOUT: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) micros: f64,
    user_micros: f64,
    client_micros: f64,
    latency: Samples,
    server: &'static str,
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

/// Publishes the events and measures.
///
/// # Errors
/// When a delivery is lost or doubled, or a server is gone.
pub(super) async fn measure(
    clients: &mut Clients,
    servers: &Servers,
    publisher: &mut Publisher,
    audience: &mut Audience,
    events: u32,
) -> Result<FanOut> {
    // The first event finds caches cold and buffers small.
    audience.publish(clients, publisher, 1).await?;
    audience.received(clients, TIMEOUT).await?;
    clients.reset().await?;
    let (clients_before, before, mut readings) = (clients.cpu(), servers.cpu()?, Vec::new());
    let mut last = before;
    for _ in 0..events.div_ceil(BLOCK) {
        for _ in 0..BLOCK {
            audience.publish(clients, publisher, 1).await?;
            audience.received(clients, TIMEOUT).await?;
        }
        let now = servers.cpu()?;
        readings.push(each((now - last).micros(), u64::from(BLOCK) * u64::from(audience.sockets)));
        last = now;
    }
    let deliveries = u64::from(events.div_ceil(BLOCK) * BLOCK) * u64::from(audience.sockets);
    let client_micros = each((clients.cpu() - clients_before).micros(), deliveries);
    publisher.confirmed().await?;
    let outcome = clients.report(audience.set, Published::Each(audience.published)).await?;
    is_sound("fan-out", servers, &outcome, u64::from(audience.sockets))?;
    let micros = median(readings);
    let user_micros = micros * (last - before).user_share();
    Ok(FanOut { micros, user_micros, client_micros, latency: outcome.latency, server: servers.name() })
}

/// The figures of the gateway beside those of the floor.
pub(super) fn figures(size: Size, gateway: &FanOut, floor: Option<&FanOut>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&FanOut) -> f64| size.figure("fan-out", name, unit, of(gateway), floor.map(of));
    vec![
        figure("CPU per delivery", "us", |measured| measured.micros),
        figure("user CPU per delivery", "us", |measured| measured.user_micros),
        figure("kernel CPU per delivery", "us", |measured| measured.micros - measured.user_micros),
        figure("client CPU per delivery", "us", |measured| measured.client_micros),
        figure("latency p50", "ms", |measured| measured.latency.millis_at(0.5)),
        figure("latency p99", "ms", |measured| measured.latency.millis_at(0.99)),
    ]
}

/// Its latencies.
pub(super) fn curve(measured: &FanOut) -> Curve {
    super::measured::curve("fan-out", measured.server, &measured.latency)
}
