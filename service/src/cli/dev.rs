//! `dev`: a whole fleet in one process.

use super::CliError;
use crate::{config::Config, telemetry::LevelHandle};

/// The most pods of a dev fleet: each has a port for browsers, one after the other from the base.
const MAX_PODS: i64 = 32;

/// Arguments of `dev`.
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
    #[arg(long, value_name = "BASE", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..=65_535 - MAX_PODS))]
    pub port: u16,
}

pub(super) async fn run(args: &Args, config: &Config, level: &LevelHandle) -> Result<(), CliError> {
    run_fleet(args, config, level).await
}

/// Runs the fleet until a signal. `config` has secrets, made at random where none were configured.
///
/// # Errors
/// When a pod can't start.
pub async fn run_fleet(_args: &Args, _config: &Config, _level: &LevelHandle) -> Result<(), CliError> {
    Err(CliError::failed("dev is not wired yet"))
}
