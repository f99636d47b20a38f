//! A fleet whose clients only live: what it asks of Redis, and what that costs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use crate::{
    client::protocol::{Arrival, Desks, Published, SetId},
    clock,
    conduct::{
        commands::Commands,
        conductor::{Conductor, progress},
        figures::{is_sound, ratio, seconds},
        side::{AT_LEISURE, Group, Side},
    },
    report::{Results, Size},
    stage::redis::Redis,
};

/// Pods that share the sockets: what they say to each other by way of Redis counts as well.
const PODS: u32 = 2;
const SET: SetId = 0;
/// After the last `ready`, until what connects leave to do is done.
const SETTLING: Duration = Duration::from_secs(1);

/// Measures it.
///
/// # Errors
/// When a server fails, or a socket does not live.
pub(super) async fn measure(conductor: &Conductor) -> Result<Results> {
    let sizes = conductor.sizes;
    let (count, window) = (sizes.sockets, Duration::from_secs(sizes.idle_seconds));
    let size = Size { sockets: count.div_ceil(PODS), pods: PODS };
    let mut side = Side::pods(conductor, size, &[[].as_slice(); PODS as usize]).await?;
    conductor.room_for(count).await?;
    side.open(Group { set: SET, count, desks: Desks::Own, in_flight: AT_LEISURE, arrival: Arrival::New }).await?;
    side.settle(SETTLING).await;
    progress(format_args!("gateway: {count} sockets, a desk each, on {PODS} pods are quiet for {} s", window.as_secs()));
    let cpu =
        |side: &Side| Ok::<_, anyhow::Error>([Some(side.servers.cpu()?), side.redis().and_then(Redis::cpu), side.nats().cpu()]);
    let (commands, before, began) = (Commands::of(&side).await?, cpu(&side)?, clock::nanos());
    sleep(window).await;
    let passed = seconds(began, clock::nanos());
    let (now, after) = (Commands::of(&side).await?, cpu(&side)?);
    let sent = now.zip(commands).map(|(now, before)| now.since(&before)).context("pods have a Redis")?;
    let outcome = side.clients.report(SET, Published::Each(0)).await?;
    is_sound("quiet", &side.servers, &outcome, u64::from(count))?;
    side.end().await?;
    let figure = |name, unit, value| size.figure("quiet", name, unit, value, None);
    let mut figures = vec![figure("Redis commands", "1/s", ratio(sent.all(), 1) / passed)];
    for (name, (after, before)) in ["CPU, both pods", "Redis CPU", "NATS CPU"].into_iter().zip(after.into_iter().zip(before)) {
        let used = after.zip(before).map(|(after, before)| (after - before).micros() / 1e6 / passed * 100.0);
        figures.extend(used.map(|used| figure(name, "% of a core", used)));
    }
    let notes = vec![format!("quiet: Redis commands a second: {}", sent.by(passed))];
    Ok(Results { figures, notes, ..Results::default() })
}
