//! `dev`: a whole fleet in one process.

use std::io;

use super::error::CliError;
use crate::{
    config::Config,
    dev::{Fleet, Plan},
};

/// The most pods of a dev fleet: each has a port for browsers, one after the other from the base.
const MAX_PODS: i64 = 32;

/// Arguments of `dev`, which starts a fleet in this process.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pods of the fleet.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=MAX_PODS))]
    pub pods: u16,
    /// A real NATS, in place of the one in memory.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// A real Redis, in place of the one in memory.
    #[arg(long, value_name = "HOST:PORT")]
    pub redis: Option<String>,
    /// Port of the first pod; the next pods have the next ports.
    #[arg(
        long,
        value_name = "BASE",
        default_value_t = 8080,
        value_parser = clap::value_parser!(u16).range(1..=65_535 - MAX_PODS)
    )]
    pub port: u16,
}

pub(super) async fn run(args: &Args, config: &Config, out: &mut dyn io::Write) -> Result<(), CliError> {
    let plan = Plan { pods: args.pods, nats: args.nats.clone(), redis: args.redis.clone(), base_port: args.port };
    let fleet = Box::pin(Fleet::start(&plan, config)).await.map_err(CliError::failed)?;
    write!(out, "{}", fleet.welcome())?;
    out.flush()?;
    fleet.run().await.map_err(CliError::failed)
}
