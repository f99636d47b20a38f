//! The scenarios with a desk for each socket: spread and forwarded.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{
    forwarded::{self, Counted},
    spread::{self, Load, Spread},
};
use crate::{
    client::protocol::{Arrival, Desks, SetId},
    conduct::{
        conductor::{Conductor, progress},
        side::{AT_LEISURE, Group, Side},
        turns::Turns,
    },
    options::Scenario,
    report::{Results, Size, set_beside},
    stage::{pod::Pod, servers::Servers},
};

/// The one set.
const SOCKETS: SetId = 0;

/// A side, and what was measured at it so far.
#[derive(Debug)]
struct Trial {
    side: Side,
    /// Events so far.
    published: u64,
    measured: Turns<Spread>,
    /// What its last pod says of the ways that events came by.
    counted: Counted,
}

/// Measures those of them that are wanted, at floors and pods in turns.
///
/// # Errors
/// When a server fails, or does not deliver.
pub(crate) async fn measure(conductor: &Conductor) -> Result<Results> {
    let sizes = conductor.sizes;
    let size = Size { sockets: sizes.sockets, pods: 1 };
    let load = Load { set: SOCKETS, sockets: sizes.sockets, rate: sizes.rate, length: Duration::from_secs(sizes.spread_seconds) };
    let mut floor = Side::floors(conductor, size).await?.map(Trial::of);
    let mut durable = Side::floor_on_durable(conductor, size).await?.map(Trial::of);
    let mut local = Trial::of(Side::pods(conductor, size, &[&[]]).await?);
    let mut beside = Side::beside(conductor, size).await?.map(Trial::of);
    let mut other = match conductor.wants(Scenario::Forwarded) {
        true => Some(Trial::of(forwarding(conductor, size).await?)),
        false => None,
    };
    let mut trials: Vec<&mut Trial> =
        floor.iter_mut().chain(&mut durable).chain([&mut local]).chain(&mut beside).chain(&mut other).collect();
    progress(format_args!("opening {} sockets, a desk each, at each side", load.sockets));
    for trial in &mut trials {
        conductor.room_for(load.sockets).await?;
        let group = Group { set: SOCKETS, count: load.sockets, desks: Desks::Own, in_flight: AT_LEISURE, arrival: Arrival::New };
        trial.side.open(group).await?;
    }
    let (turns, seconds) = (sizes.spread_turns, load.length.as_secs());
    progress(format_args!("{} events/s, each for one socket: {turns} turns of {seconds} s at each side", load.rate));
    for _ in 0..turns {
        for trial in &mut trials {
            trial.turn(load).await?;
        }
    }
    let mut results = Results::default();
    let of_floor = floor.as_ref().map(|floor| &floor.measured);
    results.figures.extend(spread::figures(size, &local.measured, of_floor));
    if let Some(beside) = &beside {
        set_beside(&mut results.figures, &spread::figures(size, &local.measured, Some(&beside.measured)));
    }
    results.figures.extend(durable.iter().flat_map(|durable| spread::beside_a_durable(size, &local.measured, &durable.measured)));
    results.curves.extend(of_floor.and_then(|floor| spread::curve("spread", Servers::FLOOR, floor)));
    results.curves.extend(spread::curve("spread", Servers::GATEWAY, &local.measured));
    if let Some(other) = &other {
        let size = Size { pods: 2, ..size };
        results.figures.extend(forwarded::figures(size, &other.measured, other.counted, &local.measured, of_floor));
        results.curves.extend(of_floor.and_then(|floor| spread::curve("forwarded", Servers::FLOOR, floor)));
        results.curves.extend(spread::curve("forwarded", Servers::GATEWAY, &other.measured));
    }
    for trial in floor.into_iter().chain(durable).chain([local]).chain(beside).chain(other) {
        trial.side.end().await?;
    }
    Ok(results)
}

/// Two pods: the first takes the events, the second has the sockets.
async fn forwarding(conductor: &Conductor, size: Size) -> Result<Side> {
    let mut side = Side::pods(conductor, size, &[&[], &forwarded::HOLDS_ONLY]).await?;
    let addresses = side.servers.addresses();
    ensure!(addresses.len() == 2, "two pods were asked for");
    addresses.last().into_iter().for_each(|holder| side.only_at(*holder));
    Ok(side)
}

/// The pod that has the sockets, if the servers are pods.
fn holder(side: &Side) -> Result<Option<&Pod>> {
    match &side.servers {
        Servers::Floors(_) => Ok(None),
        Servers::Pods(pods) => match pods.last() {
            Some(pod) => Ok(Some(pod)),
            None => bail!("there is no pod"),
        },
    }
}

/// What that pod says of the ways that events came by; none at floors.
async fn counted(side: &Side) -> Result<Option<Counted>> {
    match holder(side)? {
        Some(pod) => Ok(Some(Counted::by(pod).await?)),
        None => Ok(None),
    }
}

impl Trial {
    fn of(side: Side) -> Self {
        Self { side, published: 0, measured: Turns::default(), counted: Counted::default() }
    }

    async fn turn(&mut self, load: Load) -> Result<()> {
        let (turn, published, before) = spread::measure(&mut self.side, load, self.published, counted).await?;
        self.published = published;
        self.measured.add(turn);
        if let Some((now, before)) = counted(&self.side).await?.zip(before) {
            self.counted = self.counted.and(now.since(before));
        }
        Ok(())
    }
}
