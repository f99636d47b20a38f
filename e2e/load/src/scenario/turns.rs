//! Connects at floors and at pods in turns: a machine whose speed drifts from minute to minute is as fast for one as for the other.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::{
    connect,
    run::{Conductor, progress},
};
use crate::{
    client::{
        fleet::{Clients, Wish},
        protocol::{Desks, SetId},
    },
    report::Size,
    stage::servers::Servers,
};

/// Handshakes under way.
const CONNECTS_IN_FLIGHT: u32 = 50;
/// After the last socket has gone, until what it left to do is done.
const SETTLING: Duration = Duration::from_millis(500);

/// CPU of a connect, in microseconds.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) gateway: f64,
    pub(super) floor: Option<f64>,
}

/// Opens all sockets at the floors, drops them, does the same at the pods, and so on, until each has had so many connects. The first time is not counted: what a
/// server needs once, for its first sockets, is no part of what each costs.
///
/// # Errors
/// When a server fails, or a socket does not get ready.
pub(super) async fn measure(conductor: &Conductor, size: Size, connects: u32) -> Result<Turns> {
    let count = size.sockets * size.pods;
    let turns = connects.div_ceil(count);
    progress(format_args!("connects: {turns} turns of {count} sockets"));
    let stage = conductor.stage().await?;
    let floors = conductor.floors(&stage, size.pods).await?;
    let pods = conductor.pods(&stage, &vec![[].as_slice(); size.pods as usize]).await?;
    let mut clients = Clients::for_sockets(count, conductor.client_threads())?;
    let (mut sums, mut sets) = (Turns::default(), 0..);
    for turn in 0..=turns {
        let share = if turn == 0 { 0.0 } else { 1.0 / f64::from(turns) };
        for servers in floors.iter().chain([&pods]) {
            conductor.room_for(count).await;
            let set: SetId = sets.next().unwrap_or_default();
            let wish = Wish {
                set,
                targets: &servers.addresses(),
                count,
                desks: Desks::Shared,
                in_flight: CONNECTS_IN_FLIGHT,
                keys: &stage.keys,
                receive_buffer: None,
            };
            let micros = connect::measure(&mut clients, servers, None, &wish).await?.pod_micros * share;
            match servers {
                Servers::Floors(_) => *sums.floor.get_or_insert_default() += micros,
                Servers::Pods(_) => sums.gateway += micros,
            }
            clients.drop_all(set).await?;
            sleep(SETTLING).await;
        }
    }
    clients.end().await?;
    for servers in floors.into_iter().chain([pods]) {
        servers.end().await?;
    }
    stage.end().await?;
    Ok(sums)
}
