//! The scenarios that one set of sockets on one desk is good for: connect, idle, fan-out, burst, storm.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::{
    burst::{self, Burst},
    connect::{self, Connects},
    fan_out::{self, Audience, FanOut},
    idle::{self, Idle},
    run::{Conductor, Stage, progress},
    storm::{self, Storm},
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

/// The set of sockets, and the one that comes back after a storm.
const SOCKETS: u32 = 0;
const RETURNED: u32 = 1;
/// Those that come and go before anything is measured.
const FORERUNNERS: u32 = 2;
/// Handshakes under way when sockets are opened at leisure: enough to keep a pod busy, too few to make them wait for each other.
const CONNECTS_IN_FLIGHT: u32 = 50;
/// Before memory is looked at the first time.
const SETTLING: Duration = Duration::from_secs(1);

/// What was measured at one kind of server.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) connects: Connects,
    pub(super) idle: Option<Idle>,
    pub(super) fan_out: Option<FanOut>,
    burst: Option<Burst>,
    storm: Option<Storm>,
}

/// What of it is to be measured; a connect always is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plan {
    /// So many sockets come and go before: what a server needs once, for its first sockets, is no part of what each costs.
    pub(super) forerunners: u32,
    /// So long.
    pub(super) idle: Option<Duration>,
    /// So many events.
    pub(super) fan_out: Option<u32>,
    /// So many bursts.
    pub(super) burst: Option<u32>,
    /// With so many handshakes under way.
    pub(super) storm: Option<u32>,
}

/// Measures those of them that are wanted, at the floor and at the pods.
///
/// # Errors
/// When a server fails, or does not deliver.
pub(super) async fn measure(conductor: &Conductor) -> Result<Results> {
    let sizes = conductor.sizes;
    let plan = Plan {
        forerunners: 0,
        idle: conductor.wants(Scenario::Idle).then(|| Duration::from_secs(sizes.idle_seconds)),
        fan_out: conductor.wants(Scenario::FanOut).then_some(sizes.events),
        burst: conductor.wants(Scenario::Burst).then_some(sizes.bursts),
        storm: conductor.wants(Scenario::Storm).then_some(sizes.in_flight),
    };
    let size = Size { sockets: sizes.sockets, pods: sizes.pods };
    let (gateway, floor) = both(conductor, size, plan).await?;
    Ok(results(conductor, size, &gateway, floor.as_ref()))
}

/// What the pods do, and what as many floors do if they are wanted, on servers of their own.
///
/// # Errors
/// When a server fails, or does not deliver.
pub(super) async fn both(conductor: &Conductor, size: Size, plan: Plan) -> Result<(Measured, Option<Measured>)> {
    let stage = conductor.stage().await?;
    let floor = match conductor.floors(&stage, size.pods).await? {
        Some(servers) => Some(of(conductor, &stage, servers, size, plan).await?),
        None => None,
    };
    let pods = conductor.pods(&stage, &vec![[].as_slice(); size.pods as usize]).await?;
    let gateway = of(conductor, &stage, pods, size, plan).await?;
    stage.end().await?;
    Ok((gateway, floor))
}

async fn of(conductor: &Conductor, stage: &Stage, servers: Servers, size: Size, plan: Plan) -> Result<Measured> {
    let (addresses, count) = (servers.addresses(), size.sockets * size.pods);
    let redis = matches!(servers, Servers::Pods(_)).then_some(&stage.redis);
    let mut clients = Clients::for_sockets(count, conductor.client_threads())?;
    let mut publisher = Publisher::connect(&stage.nats).await?;
    let wish = |set, in_flight| Wish {
        set,
        targets: &addresses,
        count,
        desks: Desks::Shared,
        in_flight,
        keys: &stage.keys,
        receive_buffer: None,
    };
    if plan.forerunners > 0 {
        clients.open(&Wish { count: plan.forerunners * size.pods, ..wish(FORERUNNERS, CONNECTS_IN_FLIGHT) }).await?;
        clients.drop_all(FORERUNNERS).await?;
    }
    conductor.room_for(count).await;
    sleep(SETTLING).await;
    let empty = servers.private_bytes()?;
    progress(format_args!("{}: opening {count} sockets", servers.name()));
    let connects = connect::measure(&mut clients, &servers, redis, &wish(SOCKETS, CONNECTS_IN_FLIGHT)).await?;
    let mut audience = Audience { set: SOCKETS, sockets: count, servers: addresses.len(), published: 0 };
    let mut measured = Measured { connects, idle: None, fan_out: None, burst: None, storm: None };
    if let Some(window) = plan.idle {
        progress(format_args!("{}: idle for {} s", servers.name(), window.as_secs()));
        measured.idle = Some(idle::measure(&servers, empty, count, window).await?);
    }
    if let Some(events) = plan.fan_out {
        progress(format_args!("{}: {events} events for all", servers.name()));
        let fan_out = fan_out::measure(&mut clients, &servers, &mut publisher, &mut audience, events);
        measured.fan_out = Some(fan_out.await?);
    }
    if let Some(bursts) = plan.burst {
        progress(format_args!("{}: {bursts} bursts for all", servers.name()));
        let burst = burst::measure(&mut clients, &servers, &mut publisher, &mut audience, bursts);
        measured.burst = Some(burst.await?);
    }
    if let Some(in_flight) = plan.storm {
        progress(format_args!("{}: a storm of {count}", servers.name()));
        measured.storm = Some(storm::measure(&mut clients, &servers, redis, SOCKETS, &wish(RETURNED, in_flight)).await?);
    }
    clients.end().await?;
    servers.end().await?;
    Ok(measured)
}

fn results(conductor: &Conductor, size: Size, gateway: &Measured, floor: Option<&Measured>) -> Results {
    let mut results = Results::default();
    let figures = &mut results.figures;
    if conductor.wants(Scenario::Connect) {
        figures.extend(connect::figures(size, &gateway.connects, floor.map(|floor| &floor.connects)));
    }
    if let Some(idle) = &gateway.idle {
        figures.extend(idle::figures(size, idle, floor.and_then(|floor| floor.idle.as_ref())));
    }
    if let Some(fan_out) = &gateway.fan_out {
        figures.extend(fan_out::figures(size, fan_out, floor.and_then(|floor| floor.fan_out.as_ref())));
    }
    if let Some(burst) = &gateway.burst {
        figures.extend(burst::figures(size, burst, floor.and_then(|floor| floor.burst.as_ref())));
    }
    if let Some(storm) = &gateway.storm {
        figures.extend(storm::figures(size, storm, floor.and_then(|floor| floor.storm.as_ref())));
    }
    for measured in floor.into_iter().chain([gateway]) {
        results.curves.extend(measured.fan_out.as_ref().map(fan_out::curve));
        results.curves.extend(measured.burst.as_ref().map(burst::curve));
        results.curves.extend(measured.storm.as_ref().map(storm::curve));
        results.notes.extend(measured.storm.as_ref().and_then(storm::note));
    }
    results
}
