//! All sockets come back at once after they have missed some events: with their place in the stream, or without.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    client::protocol::{Arrival, Published},
    clock,
    conduct::{
        figures::{each, is_sound, ratio, seconds},
        side::{Group, Side},
        turns::Turns,
    },
    proc::cpu::Cpu,
    report::{Curve, Figure, Size},
    samples::Samples,
    stage::redis::Redis,
};

/// After the last `ready`, until what a connect leaves to do is done.
const SETTLING: Duration = Duration::from_millis(500);
/// What was not replayed so long after all are ready will not be.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What was measured.
#[derive(Debug)]
pub(super) struct Storm {
    until_ready: f64,
    /// Until all have what they missed, if they asked for it.
    until_whole: f64,
    pod_micros: f64,
    nats_micros: Option<f64>,
    redis_micros: Option<f64>,
    /// How many did not come back, by why.
    refused: BTreeMap<String, u64>,
    /// How many were told that they go without what they missed, by why.
    unresumed: BTreeMap<String, u64>,
    ready_in: Samples,
}

impl Storm {
    /// Did all come back, to their place if they asked for it?
    pub(super) fn was_whole(&self) -> bool {
        self.refused.is_empty() && self.unresumed.is_empty()
    }
}

/// CPU time of everybody so far.
struct Costs {
    pods: Cpu,
    nats: Option<Cpu>,
    redis: Option<Cpu>,
}

impl Costs {
    fn now(side: &Side) -> Result<Self> {
        Ok(Self { pods: side.servers.cpu()?, nats: side.nats().cpu(), redis: side.redis().and_then(Redis::cpu) })
    }
}

/// Opens the sockets of `group` and measures. If it [was whole](Storm::was_whole), all that they missed was sent to them.
///
/// # Errors
/// When one is not told so and not sent exactly what it missed, in order and before anything newer, or a server is gone.
pub(super) async fn measure(scenario: &str, side: &mut Side, group: Group) -> Result<Storm> {
    let (before, began) = (Costs::now(side)?, clock::nanos());
    let ready = side.open(group).await?;
    let (first, missed) = match group.arrival {
        Arrival::Returning { first, missed } => (first, missed),
        arrival => (arrival.first(), 0),
    };
    let (owed, sockets) = (Published::Each(first + missed), u64::from(group.count));
    let mut whole = ready;
    let counts = side.clients.report(group.set, owed).await?.counts;
    if counts.refused.is_empty() && counts.unresumed.is_empty() && missed > 0 {
        side.clients.expect(group.count, side.servers.addresses().len(), Published::Each(first), owed);
        whole = side.clients.received(TIMEOUT).await?.last;
    }
    side.settle(SETTLING).await;
    let after = Costs::now(side)?;
    let outcome = side.clients.report(group.set, owed).await?;
    let misled = &outcome.counts.misled;
    ensure!(misled.is_empty(), "{scenario}: sockets were not sent what they had missed: {misled:?}");
    if outcome.counts.refused.is_empty() && outcome.counts.unresumed.is_empty() {
        is_sound(scenario, &side.servers, &outcome, sockets)?;
    }
    let per_connect = |after: Option<Cpu>, before: Option<Cpu>| {
        after.zip(before).map(|(after, before)| each((after - before).micros(), sockets))
    };
    Ok(Storm {
        until_ready: seconds(began, ready),
        until_whole: seconds(began, whole),
        pod_micros: each((after.pods - before.pods).micros(), sockets),
        nats_micros: per_connect(after.nats, before.nats),
        redis_micros: per_connect(after.redis, before.redis),
        refused: outcome.counts.refused,
        unresumed: outcome.counts.unresumed,
        ready_in: outcome.ready_in,
    })
}

/// A figure by its name with and without resume.
struct Compared {
    name: &'static str,
    without: &'static str,
    unit: &'static str,
    of: fn(&Turns<Storm>) -> Option<f64>,
}

const COMPARED: [Compared; 6] = [
    Compared {
        name: "refused",
        without: "refused, without resume",
        unit: "",
        of: |turns| Some(all(turns, |turn| &turn.refused)),
    },
    Compared {
        name: "time until all are ready",
        without: "time until all are ready, without resume",
        unit: "s",
        of: |turns| Some(turns.middle(|turn| turn.until_ready)),
    },
    Compared {
        name: "p99 from connect to ready",
        without: "p99 from connect to ready, without resume",
        unit: "ms",
        of: |turns| Some(p99(turns)),
    },
    Compared {
        name: "pod CPU per connect",
        without: "pod CPU per connect, without resume",
        unit: "us",
        of: |turns| Some(turns.middle(|turn| turn.pod_micros)),
    },
    Compared {
        name: "NATS CPU per connect",
        without: "NATS CPU per connect, without resume",
        unit: "us",
        of: |turns| turns.middle_of_some(|turn| turn.nats_micros),
    },
    Compared {
        name: "Redis CPU per connect",
        without: "Redis CPU per connect, without resume",
        unit: "us",
        of: |turns| turns.middle_of_some(|turn| turn.redis_micros),
    },
];

/// In all turns, not in the middle one.
fn all(turns: &Turns<Storm>, of: fn(&Storm) -> &BTreeMap<String, u64>) -> f64 {
    ratio(turns.all().iter().flat_map(|turn| of(turn).values()).sum(), 1)
}

fn p99(turns: &Turns<Storm>) -> f64 {
    turns.millis_at(0.99, |turn| &turn.ready_in)
}

/// The figures of both, and how far they are apart.
pub(super) fn figures(scenario: &'static str, size: Size, resumed: &Turns<Storm>, plain: &Turns<Storm>) -> Vec<Figure> {
    let figure = |name, unit, value| size.figure(scenario, name, unit, value, None);
    let mut figures = Vec::new();
    for Compared { name, without, unit, of } in &COMPARED {
        figures.extend(of(resumed).map(|value| figure(name, unit, value)));
        figures.extend(of(plain).map(|value| figure(without, unit, value)));
    }
    figures.push(figure("not resumed", "", all(resumed, |turn| &turn.unresumed)));
    figures.push(figure("p99 from connect to ready, times that without resume", "times", p99(resumed) / p99(plain)));
    figures.push(figure("time until all have what they missed", "s", resumed.middle(|turn| turn.until_whole)));
    figures
}

/// Why some did not come back, or not to their place.
pub(super) fn notes(scenario: &'static str, turns: &Turns<Storm>) -> impl Iterator<Item = String> {
    let told = turns.all().iter().filter(|turn| !turn.was_whole());
    told.map(move |Storm { refused, unresumed, .. }| {
        format!("{scenario}: sockets that the gateway refused: {refused:?}; told that they are not resumed: {unresumed:?}")
    })
}

/// Their times to `ready`.
pub(super) fn curve(scenario: &'static str, server: &'static str, turns: &Turns<Storm>) -> Option<Curve> {
    Some(crate::conduct::figures::curve(scenario, server, &turns.samples(|turn| &turn.ready_in)?))
}
