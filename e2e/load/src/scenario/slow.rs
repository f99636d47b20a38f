//! Some clients stop reading: what the others feel of it, and what becomes of the slow ones.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    client::{
        fleet::{Clients, Outcome, Wish},
        protocol::{Arrival, Desks, Published},
    },
    conduct::{
        audience::Audience,
        conductor::{Conductor, progress},
        figures::{curve, ratio},
    },
    publisher::Publisher,
    report::{Curve, Results, Size},
    stage::servers::Servers,
};

/// One of so many stops reading.
const SLOW_ONE_OF: u32 = 10;
/// Bytes that an event is longer than usual, so that kernels' buffers are full soon: a pod's may hold some megabytes for each
/// socket.
const PADDING: usize = 32 * 1024;
/// What a slow client's kernel takes before it refuses.
const RECEIVE_BUFFER: u32 = 128 * 1024;
/// Between two events.
const PAUSE: Duration = Duration::from_millis(25);
/// A slow socket is closed when it takes nothing for so long; short, so that it happens within the run.
const WRITE_TIMEOUT: (&str, &str) = ("DAISI_WS_APP_WRITE_TIMEOUT_SECONDS", "3");
const SET: u32 = 0;
/// Before latencies count: buffers find their size meanwhile.
const WARM_UP: Duration = Duration::from_secs(1);
/// Until the slow ones, reading again, have come to the end of what was kept for them.
const CATCH_UP: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);

/// Measures it.
///
/// # Errors
/// When one of the others loses an event, or a server is gone.
pub(super) async fn measure(conductor: &Conductor) -> Result<Results> {
    let count = conductor.sizes.sockets.min(conductor.sizes.slow_sockets);
    let slow_count = (count / SLOW_ONE_OF).max(1);
    let stage = conductor.stage().await?;
    let servers = conductor.pods(conductor.service(), &stage, &[&[WRITE_TIMEOUT]]).await?;
    let addresses = servers.addresses();
    let wish = |count, receive_buffer| Wish {
        set: SET,
        targets: &addresses,
        count,
        desks: Desks::Shared,
        in_flight: 50,
        keys: &stage.keys,
        receive_buffer,
        arrival: Arrival::New,
    };
    let (mut slow, mut others) = (Clients::start(1, 1)?, Clients::start(1, conductor.client_threads())?);
    // The slow ones are users of their own: the last of the indices.
    slow.open_from(count - slow_count, &wish(slow_count, Some(RECEIVE_BUFFER))).await?;
    others.open(&wish(count - slow_count, None)).await?;
    let mut publisher = Publisher::connect(&stage.nats).await?;
    publisher.pad(PADDING);
    let mut audience = Audience { set: SET, sockets: count - slow_count, servers: 1, published: 0 };
    progress(format_args!("gateway: {count} sockets read"));
    let length = Duration::from_secs(conductor.sizes.slow_seconds);
    // A pod takes its first event a moment after it has sockets; what has gathered by then would come at once, and be more than
    // may wait for a socket.
    audience.publish(&mut others, &mut publisher, 1).await?;
    audience.received(&mut others, TIMEOUT).await?;
    paced(&mut others, &mut publisher, &mut audience, WARM_UP).await?;
    let all_read = paced(&mut others, &mut publisher, &mut audience, length).await?;
    progress(format_args!("gateway: {slow_count} of {count} sockets do not read"));
    slow.pause(SET, u32::MAX).await?;
    let some_slow = paced(&mut others, &mut publisher, &mut audience, 3 * length).await?;
    slow.unpause(SET).await?;
    slow.closed(SET, u64::from(slow_count), CATCH_UP).await?;
    let fate = slow.report(SET, Published::Each(0)).await?.counts;
    slow.end().await?;
    others.end().await?;
    servers.end().await?;
    stage.end().await?;
    let size = Size { sockets: count, pods: 1 };
    let figure = |name, unit, value| size.figure("slow", name, unit, value, None);
    let p99 = |outcome: &Outcome| outcome.latency.millis_at(0.99);
    let closed: u64 = fate.closed.values().sum();
    Ok(Results {
        figures: vec![
            figure("latency p50, all read", "ms", all_read.latency.millis_at(0.5)),
            figure("latency p99, all read", "ms", p99(&all_read)),
            figure("latency p50 of the others, some do not", "ms", some_slow.latency.millis_at(0.5)),
            figure("latency p99 of the others, some do not", "ms", p99(&some_slow)),
            figure("slow sockets that were closed", "%", ratio(closed * 100, u64::from(slow_count))),
            figure(
                "slow sockets that were told of a gap",
                "%",
                ratio(fate.gaps.min(u64::from(slow_count)) * 100, u64::from(slow_count)),
            ),
        ],
        curves: vec![
            Curve { server: "all read", ..curve("slow", Servers::GATEWAY, &all_read.latency) },
            Curve { server: "some do not", ..curve("slow", Servers::GATEWAY, &some_slow.latency) },
        ],
        notes: vec![format!(
            "slow: of {slow_count} sockets that did not read, closed: {:?}; still open: {}",
            fate.closed, fate.open
        )],
        ..Results::default()
    })
}

/// An event for all from time to time, for so long.
async fn paced(clients: &mut Clients, publisher: &mut Publisher, audience: &mut Audience, length: Duration) -> Result<Outcome> {
    clients.reset().await?;
    let (began, mut ticks) = (Instant::now(), interval(PAUSE));
    // A machine that was busy with something else must not catch up by a flood that nobody can read.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while began.elapsed() < length {
        ticks.tick().await;
        audience.publish(clients, publisher, 1).await?;
    }
    audience.received(clients, TIMEOUT).await?;
    publisher.confirmed().await?;
    let outcome = clients.report(SET, Published::Each(audience.published)).await?;
    let counts = &outcome.counts;
    ensure!(
        counts.faults.lost == 0 && counts.faults.doubled == 0 && counts.gaps == 0 && counts.closed.is_empty(),
        "slow: sockets that did read lost {}, got {} twice, and were closed: {:?}",
        counts.faults.lost,
        counts.faults.doubled,
        counts.closed
    );
    Ok(outcome)
}
