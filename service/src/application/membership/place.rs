//! How far this pod has come.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::beside::Beside;
use crate::{
    ports::StoreError,
    readiness::{Dependency, Readiness},
    runtime::watched::Watched,
};

/// How far this pod has its place in the fleet.
#[derive(Debug, Clone)]
pub struct Place {
    /// True once it is announced and its peers know it: it may have sessions and routes.
    pub taken: Arc<Watched<bool>>,
    /// True once it may take events too.
    pub joined: Arc<Watched<bool>>,
    /// Cancelled when another process lives under its id: it must touch nothing that is kept under that id any more.
    pub lost: CancellationToken,
}

impl Default for Place {
    fn default() -> Self {
        Self { taken: Arc::new(Watched::new(false)), joined: Arc::new(Watched::new(false)), lost: CancellationToken::new() }
    }
}

impl Place {
    /// Waits until it may take events.
    pub(crate) async fn until_joined(&self) {
        self.joined.wait_for(|joined| joined).await;
    }

    /// Waits until it may have sessions and routes.
    pub(crate) async fn until_taken(&self) {
        self.taken.wait_for(|taken| taken).await;
    }
}

/// What is told how far this pod has come.
#[derive(Clone)]
pub struct Standing {
    /// Its place.
    pub place: Place,
    /// Whether the store answers.
    pub readiness: Readiness,
}

impl Standing {
    /// Its peers know it.
    pub(super) fn take_place(&self, beside: &Beside) {
        self.place.taken.set(true);
        self.confirm(beside);
    }

    /// It is announced. If it has its place, it is ready, and takes events once that is safe.
    pub(super) fn confirm(&self, beside: &Beside) {
        if !self.place.taken.get() {
            return;
        }
        self.readiness.observe(Dependency::Redis, true);
        if *beside.settled.borrow() {
            self.place.joined.set(true);
        }
    }

    /// The store does not answer.
    pub(super) fn without_store(&self, error: &StoreError) {
        // Anybody may read it: the cause, which may name files, is for the log.
        self.readiness.observe_trouble(Dependency::Redis, format!("redis: {error}: {advice}", advice = error.advice()));
    }

    /// Another process lives under its id.
    pub(super) fn lose(&self) {
        self.place.taken.set(false);
        self.place.lost.cancel();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.place.lost.is_cancelled()
    }
}
