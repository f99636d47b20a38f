//! What the task of an admitted socket works with, and nothing more.

use std::sync::Arc;

use tokio::sync::watch;

use super::{evict::Evictor, goodbyes::Goodbyes};
use crate::{
    application::{hub::registry::Hub, replay::Replayer, routes::writer::RouteWriter},
    config::Config,
    metrics::Metrics,
    ports::SessionLocks,
};

/// Shared by all sockets of a pod.
pub struct SocketServices {
    /// Where the session is.
    pub hub: Arc<Hub>,
    /// Takes it out, and gives its lock back.
    pub evictor: Evictor,
    /// How long the goodbye may take.
    pub goodbyes: Arc<Goodbyes>,
    /// Where the selected chat goes.
    pub chats: ChatServices,
    /// Reads what sessions lack.
    pub replayer: Arc<Replayer>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Where a selected chat goes.
pub struct ChatServices {
    /// Confirms its route.
    pub writer: Arc<RouteWriter>,
    /// Remembers it for the next connect.
    pub locks: Arc<dyn SessionLocks>,
}

impl std::fmt::Debug for SocketServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketServices").finish_non_exhaustive()
    }
}
