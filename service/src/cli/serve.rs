//! `serve`: one pod of the fleet, until a signal ends it.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::error::CliError;
use crate::{
    config::{Config, ConfigWatch, Sources},
    gateway::{BackendChoice, Gateway, StoreChoice, StreamChoice},
    metrics::Metrics,
    runtime::{lifecycle::Shutdown, workers::PodWorkers},
    telemetry::LevelHandle,
};

/// Runs this pod until it has drained after a signal, or could not start.
pub(super) async fn run(config: Config, sources: Sources, level: LevelHandle) -> Result<(), CliError> {
    for warning in config.warnings(&sources) {
        tracing::warn!(config.key = %warning.key, "{} {}", warning.key, warning.reason);
    }
    let metrics = Arc::new(Metrics::with(config.telemetry.metrics).map_err(CliError::failed)?);
    let config = ConfigWatch::new(config, sources, Arc::clone(&metrics));
    Box::pin(serve_pod(&config, &metrics, &level)).await
}

/// Binds and runs the gateway: signals (SIGHUP is [`ConfigWatch::request_reload`]), [`ConfigWatch::start`] and
/// [`LevelHandle::follow`] included.
///
/// # Errors
/// When the pod can't start, or ends otherwise than by a signal.
pub(crate) async fn serve_pod(config: &ConfigWatch, metrics: &Arc<Metrics>, level: &LevelHandle) -> Result<(), CliError> {
    let shutdown = Shutdown::default();
    let backends = BackendChoice { store: StoreChoice::Redis, stream: StreamChoice::Nats };
    let binding = Box::pin(Gateway::bind(config, backends, shutdown.clone(), metrics, None));
    let signals = shutdown.clone().obey_signals(|| config.request_reload());
    let mut signals = std::pin::pin!(signals);
    let gateway = tokio::select! {
        bound = binding => bound.map_err(CliError::failed)?,
        // A start that waits (for NATS) can be given up.
        () = shutdown.soft.cancelled() => return Ok(()),
        ended = &mut signals => return Ok(ended?),
    };
    config.start(gateway.tasks());
    level.follow(config, gateway.tasks());
    // They end last, after all that may run on them.
    let workers = PodWorkers::start()?;
    let teams = workers.teams();
    let runtimes = teams.sockets.iter().map(|worker| worker.runtime().clone()).chain(Handle::try_current());
    runtimes.for_each(|runtime| metrics.watch_runtime(runtime));
    let mut running = Box::pin(gateway.run(teams));
    tokio::select! {
        ended = &mut running => ended.map_err(CliError::failed),
        // They end with the hard token, which ends the pod too.
        listened = signals => {
            listened?;
            running.await.map_err(CliError::failed)
        }
    }
}
