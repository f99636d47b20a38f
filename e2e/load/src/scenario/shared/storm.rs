//! All sockets drop, as when a load balancer is restarted, and come back at once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;

use crate::{
    client::protocol::{Published, SetId},
    clock,
    conduct::{
        figures::{each, ratio, seconds},
        side::{Group, Side},
        turns::Turns,
    },
    report::{Curve, Figure, Size},
    samples::Samples,
    stage::redis::Redis,
};

/// After the last `ready`, until what the old sockets left to do is done.
const SETTLING: Duration = Duration::from_millis(500);

/// What was measured.
#[derive(Debug)]
pub(crate) struct Storm {
    seconds: f64,
    pod_micros: f64,
    redis_micros: Option<f64>,
    /// How many did not come back, by why.
    refused: BTreeMap<String, u64>,
    ready_in: Samples,
}

/// Drops the sockets of `old`, opens those of `group`, and measures.
///
/// # Errors
/// When a server is gone.
pub(crate) async fn measure(side: &mut Side, old: SetId, group: Group) -> Result<Storm> {
    let redis_cpu = |side: &Side| side.redis().and_then(Redis::cpu);
    let (cpu, redis, began) = (side.servers.cpu()?, redis_cpu(side), clock::nanos());
    side.clients.drop_all(old).await?;
    let ended = side.open(group).await?;
    side.settle(SETTLING).await;
    let sockets = u64::from(group.count);
    let pod_micros = each((side.servers.cpu()? - cpu).micros(), sockets);
    let redis_micros = redis_cpu(side).zip(redis).map(|(after, before)| each((after - before).micros(), sockets));
    let outcome = side.clients.report(group.set, Published::Each(0)).await?;
    let (refused, ready_in) = (outcome.counts.refused, outcome.ready_in);
    Ok(Storm { seconds: seconds(began, ended), pod_micros, redis_micros, refused, ready_in })
}

/// The figures of the gateway beside those of the floor.
pub(crate) fn figures(size: Size, gateway: &Turns<Storm>, floor: Option<&Turns<Storm>>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Turns<Storm>) -> f64| size.figure("storm", name, unit, of(gateway), floor.map(of));
    let mut figures = vec![
        figure("time until all are ready", "s", |turns| turns.middle(|turn| turn.seconds)),
        figure("pod CPU per connect", "us", |turns| turns.middle(|turn| turn.pod_micros)),
        figure("p99 from connect to ready", "ms", |turns| turns.millis_at(0.99, |turn| &turn.ready_in)),
        // In all turns, not in the middle one.
        figure("refused", "", |turns| ratio(turns.all().iter().flat_map(|turn| turn.refused.values()).sum(), 1)),
    ];
    let redis_micros = gateway.middle_of_some(|turn| turn.redis_micros);
    figures.extend(redis_micros.map(|micros| size.figure("storm", "Redis CPU per connect", "us", micros, None)));
    figures
}

/// Why some did not come back.
pub(crate) fn notes(server: &'static str, turns: &Turns<Storm>) -> impl Iterator<Item = String> {
    let refused = turns.all().iter().map(|turn| &turn.refused).filter(|refused| !refused.is_empty());
    refused.map(move |refused| format!("storm: the {server} refused {refused:?}"))
}

/// Its times to `ready`.
pub(crate) fn curve(server: &'static str, turns: &Turns<Storm>) -> Option<Curve> {
    Some(crate::conduct::figures::curve("storm", server, &turns.samples(|turn| &turn.ready_in)?))
}
