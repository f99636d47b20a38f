//! Empties a pod that stops, without a wave of reconnects and without leaving anything behind.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{close::CloseReason, peer::PodRecord};
use rand::seq::SliceRandom as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    application::{
        admission::{goodbyes::Goodbyes, release::Releaser},
        hub::registry::Hub,
        membership::Place,
        routes::writer::RouteWriter,
    },
    ports::Routes,
    readiness::Readiness,
    telemetry::Chain,
};

/// Sockets closed in one go.
const MAX_BATCH: usize = 100;
/// Fewest milliseconds between two goes, and the share of the shutdown time that all goes together may take.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const PACED_SHARE: u32 = 3;
/// What is kept of the time for giving locks and routes back once the sockets are gone: a share of it, and no more than some seconds.
const LEAVING_SHARE: u32 = 10;
const LEAVING_TIME: Duration = Duration::from_secs(2);
/// Goodbyes end by themselves when their time is over; so long after it they have.
const CUT_NOTICED: Duration = Duration::from_millis(100);

/// What draining works with.
#[derive(Clone)]
pub struct Drain {
    /// The sessions to close.
    pub hub: Arc<Hub>,
    /// Says that the pod is not ready any more.
    pub readiness: Readiness,
    /// Gives the locks back.
    pub releaser: Releaser,
    /// What is still said to clients.
    pub goodbyes: Arc<Goodbyes>,
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

    /// Closes all sockets with 1001 in paced, shuffled batches, and waits until their goodbyes are said: what waits for a client is written for as long as it takes
    /// bytes, if need be until shortly before the deadline. What is left then is cut.
    ///
    /// Routes stay until the last client has had the time to come back elsewhere: what comes over them meanwhile, `sent_back` events a second at most, goes back
    /// to the stream.
    pub async fn close_all(&self, deadline: Instant, sent_back: usize) {
        let within = deadline.saturating_duration_since(Instant::now());
        let said_by = deadline - (within / LEAVING_SHARE).min(LEAVING_TIME);
        self.goodbyes.allow_until(said_by);
        self.hub.begin_parting(sent_back);
        let mut sessions = self.hub.sessions();
        sessions.shuffle(&mut rand::rng());
        // First those that may need the time.
        sessions.sort_by_cached_key(|session| session.mailbox().is_empty());
        let batches = u32::try_from(sessions.len().div_ceil(MAX_BATCH)).unwrap_or(u32::MAX).max(1);
        let pause = (within / PACED_SHARE / batches).min(Duration::from_millis(500)).max(MIN_PAUSE);
        tracing::info!(sessions = sessions.len(), pause = ?pause, "closing sockets");
        for batch in sessions.chunks(MAX_BATCH) {
            batch.iter().for_each(|session| session.close(CloseReason::GoingAway));
            if batch.len() == MAX_BATCH {
                tokio::time::sleep(pause).await;
            }
        }
        let gone = async {
            self.hub.emptied().await;
            self.goodbyes.all_said().await;
        };
        let all_gone = tokio::time::timeout_at(said_by + CUT_NOTICED, gone).await.is_ok();
        let cut = self.goodbyes.cut();
        if !all_gone || cut.sockets > 0 {
            let sessions = self.hub.len();
            tracing::warn!(
                sessions,
                sockets = cut.sockets,
                events = cut.events,
                "sockets were cut, with events that they had not taken"
            );
        }
        if let Some(parted_at) = self.hub.parted_at() {
            tokio::time::sleep_until(parted_at.min(said_by)).await;
        }
    }

    /// Gives back locks, routes and membership. What is not done at the deadline is left to times to live.
    pub async fn leave(&self, deadline: Instant) {
        let leave = async {
            self.hub.end_parting();
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
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), error.kind = error.as_str(), "locks or routes are left to their time to live");
            }
            Err(_) => tracing::warn!("the drain's time is over; locks or routes are left to their time to live"),
        }
    }
}
