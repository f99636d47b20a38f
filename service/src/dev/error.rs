//! Why a fleet did not start, or ended.

use crate::{
    application::auth::{mint::MintError, token::KeyError},
    gateway::StartError,
};

/// Why a fleet could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A pod could not start; if its port is taken, choose others with `--port`.
    #[error("pod {pod} can't start: {source}; if the port is taken, choose others with --port")]
    Start {
        /// Which.
        pod: String,
        /// Why not.
        source: StartError,
    },
    /// The metrics can't be made.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The ready-made tokens can't be made.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The ready-made tokens can't be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The process may not listen to signals.
    #[error("can't listen to signals: {0}")]
    Signals(#[from] std::io::Error),
    /// The threads that serve the pods can't be had.
    #[error("can't start the threads that serve sockets: {0}")]
    Workers(std::io::Error),
    /// A pod was not to be started: a fault of ours.
    #[error("{0}")]
    Order(String),
}
