//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::fleet::SOCKETS_PER_PROCESS;

/// Measures pods of the gateway against the floor: the least that any server must do for the same sockets.
#[derive(Debug, Parser)]
#[command(name = "daisi-ws-load", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measures, and prints each figure beside its budget.
    Run(Box<Run>),
    /// Makes one table of the results of several runs: the least and the most of each figure.
    Table {
        /// The folder of what `run --json` has written.
        results: PathBuf,
        /// Puts the table into this document, between its marks, and prints nothing.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Measures what it costs to read the stream again by subject, and prints a table; starts a NATS server for it.
    Reads(Reads),
    /// Serves as the floor: the socket work and nothing else.
    Floor {
        /// NATS, whose events it delivers.
        #[arg(long)]
        nats: SocketAddr,
        /// Where it listens; port 0 picks a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Takes events from the durable consumer that the run has made for it, and acknowledges each, instead of a plain
        /// subscription.
        #[arg(long)]
        durable: bool,
    },
    /// A process of sockets, as a run starts it.
    #[command(hide = true)]
    Clients {
        /// Threads that share the sockets.
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
}

/// How much is read of how much.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reads {
    /// Events in the stream.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// Subjects that they are spread over in turn.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) subjects: u64,
    /// Reads one by one.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) rounds: u64,
    /// Reads at once.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) at_once: u64,
    /// Where the server keeps its files [default: the system's folder for temporary files].
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Every scenario but growth.
    All,
    /// CPU and Redis commands of a connect.
    Connect,
    /// Memory of a socket, and the CPU of sockets that only live.
    Idle,
    /// One event after another, each for all sockets.
    FanOut,
    /// Thirty events at once for all sockets.
    Burst,
    /// All sockets drop and come back at once.
    Storm,
    /// All sockets drop, miss events, and come back at once: with their place in the stream, and without.
    StormResume,
    /// The same, where all have missed the same events.
    StormResumeShared,
    /// What a fleet of sockets that only live asks of Redis.
    Quiet,
    /// Many events a second, each for one socket.
    Spread,
    /// The same, with all sockets on another pod than the one that takes the events.
    Forwarded,
    /// Every session moves from one live pod to another.
    TakeOver,
    /// Some clients stop reading.
    Slow,
    /// Connect, idle and fan-out for more and more sockets and pods.
    Growth,
}

/// How to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// What to measure.
    #[arg(required = true)]
    pub(crate) scenarios: Vec<Scenario>,
    /// The gateway's program; by default the one beside this program.
    #[arg(long, env = "DAISI_WS_SERVICE")]
    pub(crate) service: Option<PathBuf>,
    /// Another program of the gateway, whose connect, idle, fan-out, burst, storm and spread are measured in turns with the first.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "existing_pods")]
    pub(crate) beside: Option<PathBuf>,
    /// Sockets a pod [default: 10000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(SOCKETS_PER_PROCESS)))]
    pub(crate) sockets: Option<u32>,
    /// Pods that the sockets are spread over, where a scenario does not need two.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) pods: u32,
    /// Few sockets and short windows: to see that everything works, not to measure.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Fails if a figure misses its budget.
    #[arg(long)]
    pub(crate) check: bool,
    /// Leaves the floor out.
    #[arg(long)]
    pub(crate) no_floor: bool,
    /// Seconds that idle sockets are watched for [default: 60].
    #[arg(long)]
    pub(crate) idle_seconds: Option<u64>,
    /// Events of a fan-out [default: 200].
    #[arg(long)]
    pub(crate) events: Option<u32>,
    /// Events a second where each is for one socket [default: 20000].
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// Handshakes that may be under way at once in a storm [default: 1000].
    #[arg(long)]
    pub(crate) in_flight: Option<u32>,
    /// A variable for the pods that are started, beside the necessary ones, as KEY=VALUE.
    #[arg(long = "pod-env", value_parser = variable)]
    pub(crate) pod_env: Vec<(String, String)>,
    /// Pods that are there already, on this machine; with their Redis, NATS and keys.
    #[arg(long = "pod", requires_all = ["redis", "nats", "api_key", "token_key"])]
    pub(crate) existing_pods: Vec<SocketAddr>,
    /// A Redis that is there already.
    #[arg(long)]
    pub(crate) redis: Option<SocketAddr>,
    /// A NATS that is there already.
    #[arg(long)]
    pub(crate) nats: Option<SocketAddr>,
    /// The browsers' key of pods that are there already.
    #[arg(long, env = "DAISI_WS_AUTH_SECRET_TOKEN", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// The key of user tokens of pods that are there already.
    #[arg(long, env = "DAISI_WS_AUTH_TOKEN_AES_KEY", hide_env_values = true)]
    pub(crate) token_key: Option<String>,
    /// Where the servers that are started keep their files, the stream among them; in memory (/dev/shm), the disk has no part in
    /// how late an event is [default: the system's folder for temporary files].
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// Writes everything to this file, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Draws everything to this file, as SVG.
    #[arg(long)]
    pub(crate) plot: Option<PathBuf>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The sizes of a run.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Sizes {
    /// Sockets a pod.
    pub(crate) sockets: u32,
    /// Pods.
    pub(crate) pods: u32,
    /// Seconds that idle sockets are watched for.
    pub(crate) idle_seconds: u64,
    /// Events of a fan-out.
    pub(crate) events: u32,
    /// Bursts.
    pub(crate) bursts: u32,
    /// Events a second where each is for one socket.
    pub(crate) rate: u32,
    /// Turns of that at each side.
    pub(crate) spread_turns: u32,
    /// Seconds of a turn.
    pub(crate) spread_seconds: u64,
    /// Seconds of an event for all from time to time, before some stop reading; three times as long after.
    pub(crate) slow_seconds: u64,
    /// Sockets there.
    pub(crate) slow_sockets: u32,
    /// Handshakes that may be under way at once.
    pub(crate) in_flight: u32,
}

impl Run {
    /// The sizes that hold.
    pub(crate) fn sizes(&self) -> Sizes {
        let pick = |full, quick| if self.quick { quick } else { full };
        Sizes {
            sockets: self.sockets.unwrap_or_else(|| pick(10_000, 300)),
            pods: self.pods,
            idle_seconds: self.idle_seconds.unwrap_or(if self.quick { 2 } else { 60 }),
            events: self.events.unwrap_or_else(|| pick(200, 20)),
            bursts: pick(10, 3),
            rate: self.rate.unwrap_or_else(|| pick(20_000, 1_000)),
            spread_turns: pick(5, 1),
            spread_seconds: if self.quick { 1 } else { 2 },
            slow_seconds: if self.quick { 3 } else { 4 },
            // Few: events are long there, and all of them go to all sockets, also on a machine that does other things.
            slow_sockets: pick(150, 30),
            in_flight: self.in_flight.unwrap_or_else(|| pick(1000, 100)).max(1),
        }
    }

    /// Are ever more sockets and pods to be measured? `all` is about one size.
    pub(crate) fn wants_growth(&self) -> bool {
        self.scenarios.contains(&Scenario::Growth)
    }

    /// Is this to be measured?
    pub(crate) fn wants(&self, scenario: Scenario) -> bool {
        self.scenarios.iter().any(|wanted| *wanted == scenario || *wanted == Scenario::All)
    }
}
