//! Every session moves from one pod to another while the first lives: as when a load balancer is told to use another one.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::sleep;

use crate::{
    client::{
        fleet::{Clients, Wish},
        protocol::{Desks, Published},
    },
    clock,
    conduct::{
        conductor::{Conductor, progress},
        figures::{curve, each, ratio, seconds},
    },
    report::{Results, Size},
    stage::servers::Servers,
};

/// The most sessions that move.
const SESSIONS: u32 = 1000;
/// Sessions that move at the same time.
const IN_FLIGHT: u32 = 50;
const OLD: u32 = 0;
const NEW: u32 = 1;
/// The close code of a session that has gone on elsewhere.
const REPLACED: &str = "4402";
/// Longest wait until the old sockets are closed.
const TIMEOUT: Duration = Duration::from_secs(20);
const SETTLING: Duration = Duration::from_millis(500);

/// Measures it.
///
/// # Errors
/// When a session can't move, or its old socket is not closed as it should be.
pub(super) async fn measure(conductor: &Conductor) -> Result<Results> {
    let count = conductor.sizes.sockets.min(SESSIONS);
    let stage = conductor.stage().await?;
    let servers = conductor.pods(&stage, &[&[], &[]]).await?;
    let addresses = servers.addresses();
    let [from, to] = addresses.as_slice() else { bail!("two pods were asked for") };
    let wish = |set, target| Wish {
        set,
        targets: std::slice::from_ref(target),
        count,
        desks: Desks::Own,
        in_flight: IN_FLIGHT,
        keys: &stage.keys,
        receive_buffer: None,
    };
    // The old and the new socket of a session are open at once.
    let mut clients = Clients::for_sockets(2 * count, conductor.client_threads())?;
    progress(format_args!("gateway: {count} sessions move from pod to pod"));
    clients.open(&wish(OLD, from)).await?;
    sleep(SETTLING).await;
    let (cpu, began) = (servers.cpu()?, clock::nanos());
    let ended = clients.open(&wish(NEW, to)).await?;
    clients.closed(OLD, u64::from(count), TIMEOUT).await?;
    let all_closed = clock::nanos();
    sleep(SETTLING).await;
    let micros = each((servers.cpu()? - cpu).micros(), u64::from(count));
    let old = clients.report(OLD, Published::Each(0)).await?.counts;
    let new = clients.report(NEW, Published::Each(0)).await?;
    clients.end().await?;
    servers.end().await?;
    stage.end().await?;
    let replaced = old.closed.get(REPLACED).copied().unwrap_or_default();
    ensure!(new.counts.open == u64::from(count), "of {count} sessions, {} have moved: {:?}", new.counts.open, new.counts.refused);
    ensure!(replaced == u64::from(count), "of {count} old sockets, {replaced} were closed with {REPLACED}: {:?}", old.closed);
    let size = Size { sockets: count, pods: 2 };
    let figure = |name, unit, value| size.figure("take-over", name, unit, value, None);
    Ok(Results {
        figures: vec![
            figure("p99 from connect to ready", "ms", new.ready_in.millis_at(0.99)),
            figure("p50 from connect to ready", "ms", new.ready_in.millis_at(0.5)),
            figure("CPU per session, both pods", "us", micros),
            figure("time until all have moved", "s", seconds(began, ended)),
            figure("time until all old ones are closed", "s", seconds(began, all_closed)),
            figure("old sockets closed with 4402", "%", ratio(replaced * 100, u64::from(count))),
        ],
        curves: vec![curve("take-over", Servers::GATEWAY, &new.ready_in)],
        ..Results::default()
    })
}
