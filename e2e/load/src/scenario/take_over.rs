//! Every session moves from one pod to the other while both live, and back: as when a load balancer is told to use another one.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::{
    client::protocol::{Arrival, Desks, Published, SetId},
    clock,
    conduct::{
        commands::Commands,
        conductor::{Conductor, progress},
        figures::{curve, each, ratio, seconds},
        side::{Group, Side},
        turns::Turns,
    },
    report::{Figure, Results, Size},
    samples::Samples,
    stage::servers::Servers,
};

/// The most sessions that move.
const SESSIONS: u32 = 1000;
/// Sessions that move at the same time: few, so that what is measured is what a take-over takes, and not how long a queue is for
/// the machine's cores, which all of them share.
const IN_FLIGHT: u32 = 8;
/// How often all of them move, in turns with the same connects at floors.
const TURNS: u32 = 4;
/// The close code of a session that has gone on elsewhere.
const REPLACED: &str = "4402";
/// Longest wait until the old sockets are closed.
const TIMEOUT: Duration = Duration::from_secs(20);
const SETTLING: Duration = Duration::from_millis(500);
/// Owners that were asked to let go, by the way that they were asked.
const EVICTIONS: &str = "dws_session_evictions_total";
/// By a call to their pod, and not over the kill channel.
const BY_CALL: &str = "way=\"peer\"";

/// What was measured when all sessions moved once.
#[derive(Debug)]
struct Move {
    ready_in: Samples,
    micros: f64,
    until_ready: f64,
    until_closed: f64,
    /// Floors ask nobody.
    commands: Option<Commands>,
    /// Of all owners, those that were asked by a call, in per cent.
    by_call: f64,
}

/// Two servers, the sessions at one of them, and what was measured so far.
#[derive(Debug)]
struct Trial {
    side: Side,
    sessions: u32,
    set: SetId,
    moves: Turns<Move>,
}

/// Measures it.
///
/// # Errors
/// When a session can't move, or its old socket is not closed as it should be.
pub(super) async fn measure(conductor: &Conductor) -> Result<Results> {
    let sessions = conductor.sizes.sockets.min(SESSIONS);
    let size = Size { sockets: sessions, pods: 2 };
    let trial = |side| Trial { side, sessions, set: 0, moves: Turns::default() };
    let mut floor = Side::floors(conductor, size).await?.map(trial);
    let mut gateway = trial(Side::pods(conductor, size, &[&[], &[]]).await?);
    let turns = if conductor.is_quick() { 1 } else { TURNS };
    progress(format_args!("{sessions} sessions move from pod to pod: {turns} turns at each side"));
    let mut trials: Vec<&mut Trial> = floor.iter_mut().chain([&mut gateway]).collect();
    for trial in &mut trials {
        trial.open().await?;
        trial.side.settle(SETTLING).await;
    }
    for _ in 0..turns {
        for trial in &mut trials {
            trial.turn().await?;
        }
    }
    let floors = floor.as_ref().map(|floor| &floor.moves);
    let both = floors.map(|floor| (Servers::FLOOR, floor)).into_iter().chain([(Servers::GATEWAY, &gateway.moves)]);
    let ready_in = |moves: &Turns<Move>| moves.samples(|turn| &turn.ready_in);
    let results = Results {
        figures: figures(size, &gateway.moves, floors),
        curves: both.filter_map(|(server, moves)| Some(curve("take-over", server, &ready_in(moves)?))).collect(),
        notes: gateway.moves.all().last().and_then(|turn| note(turn, sessions)).into_iter().collect(),
        ..Results::default()
    };
    for trial in floor.into_iter().chain([gateway]) {
        trial.side.end().await?;
    }
    Ok(results)
}

impl Trial {
    /// Opens the sockets of the set at that of the two servers whose turn it is. Returns when the last was ready.
    async fn open(&mut self) -> Result<u64> {
        let addresses = self.side.servers.addresses();
        let [even, odd] = addresses.as_slice() else { bail!("two servers were asked for") };
        self.side.only_at(if self.set.is_multiple_of(2) { *even } else { *odd });
        let (set, count) = (self.set, self.sessions);
        self.side.open(Group { set, count, desks: Desks::Own, in_flight: IN_FLIGHT, arrival: Arrival::New }).await
    }

    /// Moves all of them to the other server.
    async fn turn(&mut self) -> Result<()> {
        let (old, sessions) = (self.set, u64::from(self.sessions));
        let asked = self.asked().await?;
        let commands = Commands::of(&self.side).await?;
        let (cpu, began) = (self.side.servers.cpu()?, clock::nanos());
        self.set += 1;
        let ready = self.open().await?;
        if commands.is_some() {
            self.side.clients.closed(old, sessions, TIMEOUT).await?;
        }
        let closed = clock::nanos();
        self.side.settle(SETTLING).await;
        let micros = each((self.side.servers.cpu()? - cpu).micros(), sessions);
        let now = Commands::of(&self.side).await?;
        let (all, by_call) = self.asked().await?;
        let outcome = self.side.clients.report(self.set, Published::Each(0)).await?;
        let counts = &outcome.counts;
        ensure!(counts.open == sessions, "of {sessions} sessions, {} have moved: {:?}", counts.open, counts.refused);
        if commands.is_some() {
            let closed = self.side.clients.report(old, Published::Each(0)).await?.counts.closed;
            let replaced = closed.get(REPLACED).copied().unwrap_or_default();
            ensure!(replaced == sessions, "of {sessions} old sockets, {replaced} were closed with {REPLACED}: {closed:?}");
        } else {
            // At floors nobody closes them.
            self.side.clients.drop_all(old).await?;
        }
        self.moves.add(Move {
            ready_in: outcome.ready_in,
            micros,
            until_ready: seconds(began, ready),
            until_closed: seconds(began, closed),
            commands: now.zip(commands).map(|(now, before)| now.since(&before)),
            by_call: (by_call - asked.1) / (all - asked.0).max(1.0) * 100.0,
        });
        Ok(())
    }

    /// Owners that were asked to let go so far, and those of them that were asked by a call.
    async fn asked(&self) -> Result<(f64, f64)> {
        let servers = &self.side.servers;
        Ok((servers.metric(EVICTIONS, "").await?, servers.metric(EVICTIONS, BY_CALL).await?))
    }
}

fn figures(size: Size, gateway: &Turns<Move>, floor: Option<&Turns<Move>>) -> Vec<Figure> {
    let figure = |name, unit, of: fn(&Turns<Move>) -> f64| size.figure("take-over", name, unit, of(gateway), floor.map(of));
    let of_pods = |name, unit, value| size.figure("take-over", name, unit, value, None);
    let sessions = u64::from(size.sockets);
    let of_redis = |of: fn(&Commands) -> u64| {
        gateway.middle_of_some(|turn| turn.commands.as_ref().map(|commands| ratio(of(commands), sessions)))
    };
    let mut figures = vec![
        figure("p99 from connect to ready", "ms", |turns| turns.millis_at(0.99, |turn| &turn.ready_in)),
        figure("p50 from connect to ready", "ms", |turns| turns.millis_at(0.5, |turn| &turn.ready_in)),
        figure("CPU per session, both pods", "us", |turns| turns.middle(|turn| turn.micros)),
        figure("time until all have moved", "s", |turns| turns.middle(|turn| turn.until_ready)),
        of_pods("time until all old ones are closed", "s", gateway.middle(|turn| turn.until_closed)),
        of_pods("owners asked by a call", "%", gateway.middle(|turn| turn.by_call)),
    ];
    figures.extend(of_redis(Commands::all).map(|value| of_pods("Redis commands per take-over", "", value)));
    figures.extend(of_redis(Commands::published).map(|value| of_pods("kills published per take-over", "", value)));
    figures
}

/// What Redis was asked for.
fn note(turn: &Move, sessions: u32) -> Option<String> {
    let commands = turn.commands.as_ref()?.by(f64::from(sessions));
    Some(format!("take-over: Redis commands of one: {commands}"))
}
