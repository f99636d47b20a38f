//! What every part of a pod is made of.

use std::sync::Arc;

use daisi_ws_domain::peer::PodRecord;
use tokio::sync::watch;

use crate::{
    config::Config,
    metrics::Metrics,
    ports::{EventSource, KillBus, Peers, Replay, Routes, SessionLocks},
    readiness::Readiness,
    runtime::{fine_timer::FineTimer, lifecycle::Tasks},
};

/// What a pod works on; each for real or on memory.
#[derive(Clone)]
pub struct Backends {
    /// Session locks.
    pub locks: Arc<dyn SessionLocks>,
    /// Routes and membership.
    pub routes: Arc<dyn Routes>,
    /// Kills.
    pub kills: Arc<dyn KillBus>,
    /// Events.
    pub source: Arc<dyn EventSource>,
    /// The stream again, beside the consumer.
    pub replay: Arc<dyn Replay>,
    /// Other pods.
    pub peers: Arc<dyn Peers>,
    /// Ends the pauses between pulls of events.
    pub timer: Arc<FineTimer>,
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

/// What every part of a pod is made of.
pub(super) struct Ground<'a> {
    pub(super) me: &'a PodRecord,
    pub(super) config: &'a watch::Receiver<Arc<Config>>,
    pub(super) backends: &'a Backends,
    pub(super) readiness: &'a Readiness,
    pub(super) tasks: &'a Tasks,
    pub(super) metrics: &'a Arc<Metrics>,
}
