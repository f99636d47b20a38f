//! `serve`: one pod of the fleet, until a signal ends it.

use std::sync::Arc;

use super::CliError;
use crate::{
    config::{Config, ConfigWatch, Sources},
    metrics::Metrics,
    telemetry::LevelHandle,
};

/// Runs this pod until it has drained after a signal, or could not start.
pub(super) async fn run(config: Config, sources: Sources, level: LevelHandle) -> Result<(), CliError> {
    let metrics = Arc::new(Metrics::new().map_err(CliError::failed)?);
    let config = ConfigWatch::new(config, sources, Arc::clone(&metrics));
    serve_pod(&config, &metrics, &level).await
}

/// Binds and runs the gateway: signals (SIGHUP is [`ConfigWatch::request_reload`]), [`ConfigWatch::start`] and [`LevelHandle::follow`] included.
///
/// # Errors
/// When the pod can't start, or ends otherwise than by a signal.
pub async fn serve_pod(_config: &ConfigWatch, _metrics: &Arc<Metrics>, _level: &LevelHandle) -> Result<(), CliError> {
    Err(CliError::failed("serve is not wired yet"))
}
