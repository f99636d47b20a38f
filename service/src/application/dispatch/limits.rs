//! What may wait for a peer, as the consumer and the size of the fleet have it now.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    application::{
        fleet::directory::Directory,
        forward::{forwarder::Forwarder, limits::ForwardLimits},
    },
    config::Config,
    ports::EventSource,
};

/// Keeps the forwarder's limits up to date.
#[derive(Clone)]
pub struct Limits {
    /// Knows the consumer's limits.
    pub source: Arc<dyn EventSource>,
    /// Who shares them.
    pub directory: Arc<Directory>,
    /// Told.
    pub forwarder: Arc<Forwarder>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
}

impl Limits {
    /// The consumer's limits are known late and can change; the share of a pod depends on how many there are.
    pub(super) fn apply(&self) {
        let limits = self.source.limits();
        let share = limits.max_ack_pending.saturating_mul(self.config.borrow().app.forward_parked_share_percent as usize) / 100;
        self.forwarder.set_limits(ForwardLimits::of(limits, share, self.directory.fleet_size()));
    }
}
