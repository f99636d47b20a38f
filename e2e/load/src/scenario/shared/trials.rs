//! The scenarios that one set of sockets on one desk is good for: connect, idle, fan-out, burst, storm.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::{
    burst::{self, Burst},
    connect::{self, Connects},
    fan_out::{self, FanOut},
    idle::{self, Idle, Watch},
    storm::{self, Storm},
};
use crate::{
    client::protocol::{Arrival, Desks, SetId},
    conduct::{
        audience::Audience,
        conductor::{Conductor, progress},
        side::{AT_LEISURE, Group, Side},
        turns::Turns,
    },
    options::Scenario,
    report::{Figure, Results, Size, set_beside},
    stage::servers::Servers,
};

/// Those who are there before anything is measured, on desks of their own.
const FORERUNNERS: SetId = 0;
/// The first set of the measured sockets; each that takes its place is the next.
const FIRST: SetId = 1;
/// After sockets have come or gone, until what they left to do is done.
const SETTLING: Duration = Duration::from_secs(1);
/// Storms at each side: the middle one counts.
const STORMS: u32 = 3;

/// What was measured at one side.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) connects: Turns<Connects>,
    pub(crate) idle: Option<Idle>,
    pub(crate) fan_out: Turns<FanOut>,
    burst: Turns<Burst>,
    storm: Turns<Storm>,
}

/// What of it is to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// So many sockets are open at each server before, and until memory was looked at: what a server needs once, for its first
    /// sockets, is no part of what each costs.
    pub(crate) forerunners: u32,
    /// How often all sockets are opened. If more than once, the first time does not count for what a connect costs.
    pub(crate) connects: u32,
    /// So long.
    pub(crate) idle: Option<Duration>,
    /// So many turns of [`fan_out::EVENTS`] events.
    pub(crate) fan_out: u32,
    /// So many bursts that count.
    pub(crate) bursts: u32,
    /// So many.
    pub(crate) storms: u32,
    /// The other program too, if there is one.
    pub(crate) beside: bool,
}

/// What was measured at all sides.
#[derive(Debug)]
pub(crate) struct All {
    pub(crate) gateway: Measured,
    pub(crate) floor: Option<Measured>,
    beside: Option<Measured>,
}

/// A side, its sockets, and what was measured at it so far.
#[derive(Debug)]
struct Trial {
    side: Side,
    count: u32,
    audience: Audience,
    /// Bytes that the servers held before the sockets were opened.
    empty: u64,
    watch: Option<Watch>,
    measured: Measured,
}

/// Measures those of them that are wanted, at floors and pods in turns.
///
/// # Errors
/// When a server fails, or does not deliver.
pub(crate) async fn measure(conductor: &Conductor) -> Result<Results> {
    let sizes = conductor.sizes;
    let turns = |scenario, turns| if conductor.wants(scenario) { turns } else { 0 };
    let plan = Plan {
        forerunners: 0,
        connects: 1,
        idle: conductor.wants(Scenario::Idle).then(|| Duration::from_secs(sizes.idle_seconds)),
        fan_out: turns(Scenario::FanOut, sizes.events.div_ceil(fan_out::EVENTS)),
        bursts: turns(Scenario::Burst, sizes.bursts),
        storms: turns(Scenario::Storm, if conductor.is_quick() { 1 } else { STORMS }),
        beside: true,
    };
    let size = Size { sockets: sizes.sockets, pods: sizes.pods };
    Ok(results(conductor, size, &all(conductor, size, plan).await?))
}

/// What the pods do, and what as many floors and pods of the other program do if they are wanted: each step at one and then at
/// the next, as often as it has turns.
///
/// # Errors
/// When a server fails, or does not deliver.
pub(crate) async fn all(conductor: &Conductor, size: Size, plan: Plan) -> Result<All> {
    let mut floor = Side::floors(conductor, size).await?.map(|side| Trial::of(side, size));
    let mut gateway = Trial::of(Side::pods(conductor, size, &vec![[].as_slice(); size.pods as usize]).await?, size);
    let beside = if plan.beside { Side::beside(conductor, size).await? } else { None };
    let mut beside = beside.map(|side| Trial::of(side, size));
    let mut trials: Vec<&mut Trial> = floor.iter_mut().chain([&mut gateway]).chain(&mut beside).collect();
    progress(format_args!("opening {} sockets at each side", size.sockets * size.pods));
    for trial in &mut trials {
        trial.prepare(plan.forerunners * size.pods).await?;
    }
    for turn in 0..plan.connects {
        for trial in &mut trials {
            conductor.room_for(size.sockets * size.pods).await?;
            trial.connect(turn > 0).await?;
        }
        if turn == 0 {
            idle(&mut trials, plan).await?;
        }
    }
    let say = |turns: u32, what: &str| {
        if turns > 0 {
            progress(format_args!("{what}: {turns} turns at each side"));
        }
    };
    say(plan.fan_out, "events for all");
    for _ in 0..plan.fan_out {
        for trial in &mut trials {
            let turn = fan_out::measure(&mut trial.side, &mut trial.audience).await?;
            trial.measured.fan_out.add(turn);
        }
    }
    say(plan.bursts, "bursts for all");
    for _ in 0..plan.bursts {
        for trial in &mut trials {
            let turn = burst::measure(&mut trial.side, &mut trial.audience).await?;
            trial.measured.burst.add(turn);
        }
    }
    say(plan.storms, "storms");
    for _ in 0..plan.storms {
        for trial in &mut trials {
            conductor.room_for(size.sockets * size.pods).await?;
            trial.storm(conductor.sizes.in_flight).await?;
        }
    }
    Ok(All { gateway: gateway.end().await?, floor: ended(floor).await?, beside: ended(beside).await? })
}

async fn ended(trial: Option<Trial>) -> Result<Option<Measured>> {
    match trial {
        Some(trial) => trial.end().await.map(Some),
        None => Ok(None),
    }
}

/// Looks at memory, then watches all sides at once.
async fn idle(trials: &mut [&mut Trial], plan: Plan) -> Result<()> {
    if let Some(window) = plan.idle {
        progress(format_args!("idle for {} s", window.as_secs_f64()));
        settle(trials).await;
        for trial in &mut *trials {
            trial.watch = Some(Watch::begin(&trial.side.servers, trial.empty, trial.count)?);
        }
        sleep(window).await;
        for trial in &mut *trials {
            trial.measured.idle = trial.watch.take().map(|watch| watch.end(&trial.side.servers)).transpose()?;
        }
    }
    if plan.forerunners > 0 {
        for trial in &mut *trials {
            trial.side.clients.drop_all(FORERUNNERS).await?;
        }
        settle(trials).await;
    }
    Ok(())
}

async fn settle(trials: &[&mut Trial]) {
    if let Some(trial) = trials.first() {
        trial.side.settle(SETTLING).await;
    }
}

impl Trial {
    fn of(side: Side, size: Size) -> Self {
        let count = size.sockets * size.pods;
        let audience = Audience { set: FIRST, sockets: count, servers: side.servers.addresses().len(), published: 0 };
        Self { side, count, audience, empty: 0, watch: None, measured: Measured::default() }
    }

    fn group(&self, in_flight: u32) -> Group {
        Group { set: self.audience.set, count: self.count, desks: Desks::Shared, in_flight, arrival: Arrival::New }
    }

    async fn prepare(&mut self, forerunners: u32) -> Result<()> {
        if forerunners > 0 {
            let group =
                Group { set: FORERUNNERS, count: forerunners, desks: Desks::Own, in_flight: AT_LEISURE, arrival: Arrival::New };
            self.side.open(group).await?;
        }
        self.side.settle(SETTLING).await;
        self.empty = self.side.servers.private_bytes()?;
        Ok(())
    }

    /// Opens the sockets, `again` if those are to be dropped before that are open. The first time is forgotten then.
    async fn connect(&mut self, again: bool) -> Result<()> {
        if again {
            self.side.clients.drop_all(self.audience.set).await?;
            self.audience.set += 1;
            self.side.settle(SETTLING).await;
        }
        if self.audience.set == FIRST + 1 {
            self.measured.connects = Turns::default();
        }
        let group = self.group(AT_LEISURE);
        let turn = connect::measure(&mut self.side, group).await?;
        self.measured.connects.add(turn);
        Ok(())
    }

    async fn storm(&mut self, in_flight: u32) -> Result<()> {
        let old = self.audience.set;
        self.audience.set += 1;
        let group = self.group(in_flight);
        let turn = storm::measure(&mut self.side, old, group).await?;
        self.measured.storm.add(turn);
        Ok(())
    }

    async fn end(self) -> Result<Measured> {
        self.side.end().await?;
        Ok(self.measured)
    }
}

fn results(conductor: &Conductor, size: Size, All { gateway, floor, beside }: &All) -> Results {
    let floor = floor.as_ref();
    let mut results = Results { figures: figures(conductor, size, gateway, floor), ..Results::default() };
    if let Some(beside) = beside {
        set_beside(&mut results.figures, &figures(conductor, size, gateway, Some(beside)));
    }
    for (server, measured) in floor.map(|floor| (Servers::FLOOR, floor)).into_iter().chain([(Servers::GATEWAY, gateway)]) {
        results.curves.extend(fan_out::curve(server, &measured.fan_out));
        results.curves.extend(burst::curve(server, &measured.burst));
        results.curves.extend(storm::curve(server, &measured.storm));
        results.notes.extend(storm::notes(server, &measured.storm));
    }
    results
}

/// The figures of the gateway beside those of another side.
fn figures(conductor: &Conductor, size: Size, gateway: &Measured, floor: Option<&Measured>) -> Vec<Figure> {
    let mut figures = Vec::new();
    if conductor.wants(Scenario::Connect) {
        figures.extend(connect::figures(size, &gateway.connects, floor.map(|floor| &floor.connects)));
    }
    if let Some(idle) = &gateway.idle {
        figures.extend(idle::figures(size, idle, floor.and_then(|floor| floor.idle.as_ref())));
    }
    if !gateway.fan_out.is_empty() {
        figures.extend(fan_out::figures(size, &gateway.fan_out, floor.map(|floor| &floor.fan_out)));
    }
    if !gateway.burst.is_empty() {
        figures.extend(burst::figures(size, &gateway.burst, floor.map(|floor| &floor.burst)));
    }
    if !gateway.storm.is_empty() {
        figures.extend(storm::figures(size, &gateway.storm, floor.map(|floor| &floor.storm)));
    }
    figures
}
