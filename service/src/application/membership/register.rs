//! Registers everything again when the store may have lost it.

use std::{sync::Arc, time::Duration};

use super::beside::{Beside, Registering};
use crate::{
    application::{hub::registry::Hub, routes::writer::RouteWriter},
    ports::log_store_error,
    runtime::backoff::Backoff,
};

/// Pause before routes that could not be registered again are tried anew; the writer has a back-off of its own.
const REGISTER_PAUSES: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));

/// What registering works with.
#[derive(Clone)]
pub(crate) struct Registrar {
    /// Writes all routes again.
    pub writer: Arc<RouteWriter>,
    /// Told of a gap when this pod was taken for dead.
    pub hub: Arc<Hub>,
}

impl Registrar {
    /// Writes all routes again whenever that is needed, and then tells the sessions of a gap if others may have routed past this
    /// pod: not before, or what is missed until the routes are there would go untold.
    pub(super) async fn run(&self, beside: &Beside) {
        let mut wanted = beside.register.subscribe();
        let (mut done, mut pauses) = (Registering::default(), REGISTER_PAUSES);
        loop {
            let now = *wanted.borrow_and_update();
            if now.rounds == done.rounds {
                let _ = wanted.changed().await;
                continue;
            }
            if let Err(error) = self.writer.reassert().await {
                log_store_error!(&error, "routes could not be registered again; trying on");
                tokio::time::sleep(pauses.pause()).await;
                continue;
            }
            pauses.reset();
            if now.gaps > done.gaps {
                let told = self.hub.announce_resumed(now.owed > done.owed);
                tracing::warn!(
                    sessions = told,
                    "events may have gone past this pod (it was taken for dead, or takes no gaps from a peer); its sessions are \
                    told of a gap"
                );
            }
            done = now;
        }
    }
}
