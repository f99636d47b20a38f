//! Empties a pod that stops, without a wave of reconnects and without leaving anything behind.

use std::{sync::Arc, time::Duration};

use rand::seq::SliceRandom as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{hub::Hub, membership::Place, ports::Routes, readiness::Readiness, release::Releaser, route_writer::RouteWriter};
use crate::domain::{close::CloseReason, peer::PodRecord};

/// Sockets closed in one go.
const MAX_BATCH: usize = 100;
/// Fewest milliseconds between two goes, and the share of the shutdown time that all goes together may take.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const PACED_SHARE: u32 = 3;

/// What draining works with.
#[derive(Clone)]
pub struct Drain {
    /// The sessions to close.
    pub hub: Arc<Hub>,
    /// Says that the pod is not ready any more.
    pub readiness: Readiness,
    /// Gives the locks back.
    pub releaser: Releaser,
    /// Takes the routes away.
    pub writer: Arc<RouteWriter>,
    /// Takes the pod out of the members.
    pub routes: Arc<dyn Routes>,
    /// This pod.
    pub me: PodRecord,
    /// Whether it has its place in the fleet, or lost it.
    pub place: Place,
    /// Cancelled when the pod is about to be taken out of the members: it must not be announced any more.
    pub leaving: CancellationToken,
    /// Cancelled once nothing announces it.
    pub unannounced: CancellationToken,
}

impl Drain {
    /// Refuses new sessions from now on.
    pub fn begin(&self) {
        self.readiness.drain();
        self.hub.stop_admitting();
    }

    /// Closes all sockets with 1001 in paced, shuffled batches, waits until they are gone, and gives back locks and routes. Call it when no more
    /// events are taken. What is not done at the deadline is left to times to live.
    pub async fn close_all(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut sessions = self.hub.sessions();
        sessions.shuffle(&mut rand::rng());
        let batches = u32::try_from(sessions.len().div_ceil(MAX_BATCH)).unwrap_or(u32::MAX).max(1);
        let pause = (within / PACED_SHARE / batches).min(Duration::from_millis(500)).max(MIN_PAUSE);
        tracing::info!(sessions = sessions.len(), pause = ?pause, "closing sockets");
        for batch in sessions.chunks(MAX_BATCH) {
            batch.iter().for_each(|session| session.close(CloseReason::GoingAway));
            if batch.len() == MAX_BATCH {
                tokio::time::sleep(pause).await;
            }
        }
        if tokio::time::timeout_at(deadline, self.hub.emptied()).await.is_err() {
            tracing::warn!(sessions = self.hub.len(), "the drain's time is over; sockets are cut");
            return;
        }
        let leave = async {
            self.releaser.flush().await;
            if self.place.lost.is_cancelled() {
                // Another process lives under this id: routes and membership are that one's.
                return Ok(());
            }
            // Without a place it never had a route.
            let placed = *self.place.taken.borrow();
            let routes_gone = if placed { self.writer.confirm(&[]).await } else { Ok(()) };
            self.leaving.cancel();
            self.unannounced.cancelled().await;
            let left = self.routes.leave(&self.me).await;
            routes_gone.and(left)
        };
        match tokio::time::timeout_at(deadline, leave).await {
            Ok(Ok(())) => tracing::info!("the pod is empty: no lock, no route, no membership left"),
            Ok(Err(error)) => tracing::warn!(%error, "locks or routes are left to their time to live"),
            Err(_) => tracing::warn!("the drain's time is over; locks or routes are left to their time to live"),
        }
    }
}
