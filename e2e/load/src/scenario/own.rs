//! The scenarios with a desk for each socket: spread and forwarded.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, bail};

use super::{
    forwarded::{self, Counted, Forwarded},
    run::{Conductor, Stage, progress},
    spread::{self, Load, Spread},
};
use crate::{
    client::{
        fleet::{Clients, Wish},
        protocol::Desks,
    },
    options::Scenario,
    publisher::Publisher,
    report::{Results, Size},
    stage::servers::Servers,
};

/// Handshakes under way.
const CONNECTS_IN_FLIGHT: u32 = 50;
/// The one set.
const SOCKETS: u32 = 0;

/// Measures those of them that are wanted, at the floor and at pods.
///
/// # Errors
/// When a server fails, or does not deliver.
pub(super) async fn measure(conductor: &Conductor) -> Result<Results> {
    let size = Size { sockets: conductor.sizes.sockets, pods: 1 };
    let stage = conductor.stage().await?;
    let floor = match conductor.floors(&stage, 1).await? {
        Some(servers) => Some(on_the_first(conductor, &stage, servers).await?),
        None => None,
    };
    let durable = match conductor.floor_on_durable(&stage).await? {
        Some(servers) => {
            progress(format_args!("the next floor takes events from a durable consumer and acknowledges them"));
            let measured = on_the_first(conductor, &stage, servers).await?;
            stage.nats.delete_durable().await?;
            Some(measured)
        }
        None => None,
    };
    let local = on_the_first(conductor, &stage, conductor.pods(&stage, &[&[]]).await?).await?;
    stage.end().await?;
    let mut results = Results::default();
    results.figures.extend(spread::figures(size, &local, floor.as_ref()));
    results.figures.extend(durable.iter().flat_map(|durable| spread::beside_a_durable(size, &local, durable)));
    results.curves.extend(floor.as_ref().map(spread::curve));
    results.curves.push(spread::curve(&local));
    if conductor.wants(Scenario::Forwarded) {
        let gateway = on_the_other(conductor).await?;
        results.figures.extend(forwarded::figures(Size { pods: 2, ..size }, &gateway, &local, floor.as_ref()));
        results.curves.extend(floor.as_ref().map(|floor| crate::report::Curve { scenario: "forwarded", ..spread::curve(floor) }));
        results.curves.push(forwarded::curve(&gateway));
    }
    Ok(results)
}

async fn on_the_first(conductor: &Conductor, stage: &Stage, servers: Servers) -> Result<Spread> {
    let Some(address) = servers.addresses().first().copied() else { bail!("there is no server") };
    let (measured, ()) = load(conductor, stage, &servers, address, || Ok(())).await?;
    servers.end().await?;
    Ok(measured)
}

/// The first pod takes the events, the second has the sockets.
async fn on_the_other(conductor: &Conductor) -> Result<Forwarded> {
    let stage = conductor.stage().await?;
    let servers = conductor.pods(&stage, &[&[], &forwarded::HOLDS_ONLY]).await?;
    let Servers::Pods(pods) = &servers else { bail!("pods were asked for") };
    let [_, holder] = pods.as_slice() else { bail!("two pods were asked for") };
    let (measured, before) = load(conductor, &stage, &servers, holder.address, || Counted::by(holder)).await?;
    let counted = Counted::by(holder)?.since(before);
    servers.end().await?;
    stage.end().await?;
    Ok(Forwarded::new(measured, counted))
}

/// Opens the sockets at this address and measures the load; `begin` is called when it begins.
async fn load<T>(
    conductor: &Conductor,
    stage: &Stage,
    servers: &Servers,
    address: SocketAddr,
    begin: impl FnOnce() -> Result<T>,
) -> Result<(Spread, T)> {
    let sizes = conductor.sizes;
    let mut clients = Clients::for_sockets(sizes.sockets, conductor.client_threads())?;
    let mut publisher = Publisher::connect(&stage.nats).await?;
    progress(format_args!("{}: opening {} sockets, a desk each", servers.name(), sizes.sockets));
    let wish = Wish {
        set: SOCKETS,
        targets: &[address],
        count: sizes.sockets,
        desks: Desks::Own,
        in_flight: CONNECTS_IN_FLIGHT,
        keys: &stage.keys,
        receive_buffer: None,
    };
    clients.open(&wish).await?;
    let length = Duration::from_secs(sizes.spread_seconds);
    progress(format_args!("{}: {} events/s for {} s, each for one socket", servers.name(), sizes.rate, length.as_secs()));
    let load = Load { set: SOCKETS, sockets: sizes.sockets, rate: sizes.rate, length };
    let redis = matches!(servers, Servers::Pods(_)).then_some(&stage.redis);
    let measured = spread::measure(&mut clients, servers, redis, &mut publisher, load, begin).await?;
    clients.end().await?;
    Ok(measured)
}
