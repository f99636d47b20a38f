//! Empties a pod that stops, without a wave of reconnects and without leaving anything behind.
//!
//! Each step is here, and in what order they come in `shutdown.rs`.

mod moving;

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{close::CloseReason, peer::PodRecord};
use tokio::time::Instant;

use crate::{
    application::{
        admission::{evict::Evictor, goodbyes::Goodbyes, release::Releaser},
        dispatch::in_flight::InFlightEvents,
        forward::forwarder::Forwarder,
        hub::{registry::Hub, session::Session},
        membership::Place,
        routes::writer::RouteWriter,
    },
    ports::{EventSource, Routes, StoreError},
    readiness::Readiness,
    runtime::{chance, stop::Stop},
};

/// Sockets closed in one go.
const MAX_BATCH: usize = 100;
/// Fewest milliseconds between two goes, and the share of the shutdown time that all goes together may take.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const PACED_SHARE: u32 = 3;
/// What is kept of the time for giving locks and routes back once the sockets are gone: a share of it, and no more than some
/// seconds.
const LEAVING_SHARE: u32 = 10;
const LEAVING_TIME: Duration = Duration::from_secs(2);
/// Goodbyes end by themselves when their time is over; so long after it they have.
const CUT_NOTICED: Duration = Duration::from_millis(100);
/// The share of max-ack-pending that events may have, in a second, which a pod that drains sends back because somebody is between
/// it and another.
const SENT_BACK_SHARE: usize = 2;

/// The steps of draining, each for itself; in what order is for the `shutdown` module to say.
pub struct Drain {
    /// Nobody comes in.
    pub entrance: Entrance,
    /// Events in flight are brought to their end.
    pub events: Events,
    /// Sockets are closed.
    pub sockets: Sockets,
    /// Locks, routes and membership go.
    pub leaving: Leaving,
}

/// Where sessions come in, which is closed first.
pub struct Entrance {
    /// Says that the pod is not ready any more.
    pub readiness: Readiness,
    /// Admits sessions.
    pub hub: Arc<Hub>,
}

impl Entrance {
    /// Refuses new sessions from now on.
    pub fn close(&self) {
        tracing::debug!(drain.stage = "entrance", "no session is admitted any more");
        self.readiness.drain();
        self.hub.stop_admitting();
    }
}

/// Events that were taken and are not settled.
pub struct Events {
    /// Where they come from.
    pub source: Arc<dyn EventSource>,
    /// How many are not settled.
    pub in_flight: InFlightEvents,
    /// Has debts with peers.
    pub forwarder: Arc<Forwarder>,
}

impl Events {
    /// Waits until pulling has stopped and what is in flight has been settled, at most until then, and tells peers of the gaps
    /// that they are owed.
    pub async fn finish(&self, pulling: &Stop, until: Instant) {
        let stopped = tokio::time::timeout_at(until, pulling.stopped()).await.is_ok();
        if !(stopped && self.in_flight.finished(until).await) {
            tracing::warn!("some events were still in flight; the stream will deliver them to another pod");
        }
        self.settle_debts(until).await;
        tracing::debug!(drain.stage = "events", "what was in flight has its end");
    }

    /// Tells peers of the gaps that they are owed, at most until then.
    pub async fn settle_debts(&self, until: Instant) {
        self.forwarder.settle_debts(until).await;
    }

    /// So many a second may go back to the stream because somebody is between this pod and another.
    #[must_use]
    pub fn sent_back(&self) -> usize {
        (self.source.limits().max_ack_pending / SENT_BACK_SHARE).max(1)
    }
}

/// Sockets of this pod, which are closed in paced batches.
pub struct Sockets {
    /// Their sessions.
    pub hub: Arc<Hub>,
    /// Has them move, or closes them.
    pub evictor: Evictor,
    /// What is still said to clients.
    pub goodbyes: Arc<Goodbyes>,
}

impl Sockets {
    /// Empties the pod of sockets: clients that can are asked to move, all others closed with 1001, both in paced, shuffled
    /// batches. Waits until their goodbyes are said: what waits for a client is written for as long as it takes bytes, if need be
    /// until shortly before the deadline. What is left then is cut.
    ///
    /// Routes of those that were closed stay until the last client has had the time to come back elsewhere: what comes over them
    /// meanwhile, `sent_back` events a second at most, goes back to the stream.
    pub async fn close(&self, deadline: Instant, sent_back: usize) {
        let within = deadline.saturating_duration_since(Instant::now());
        let said_by = deadline - (within / LEAVING_SHARE).min(LEAVING_TIME);
        self.goodbyes.allow_until(said_by);
        self.hub.begin_parting(sent_back);
        let mut sessions = self.hub.sessions();
        chance::shuffle(&mut sessions);
        let (movers, mut others): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|session| session.can_move());
        // First those that may need the time.
        others.sort_by_cached_key(|session| session.mailbox().is_empty());
        // Whoever has not moved by then is closed, and comes back elsewhere.
        let moved_by = said_by - (within / LEAVING_SHARE).min(LEAVING_TIME);
        let moving = async {
            tokio::select! {
                biased;
                () = moving::move_all(&self.hub, &self.evictor, &movers, moved_by) => {}
                () = self.hub.emptied() => {}
            }
        };
        tokio::join!(close_all(&others, within / PACED_SHARE), moving);
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
        tracing::debug!(drain.stage = "sockets", "the sockets have their end");
    }
}

/// Closes these sessions with 1001, in paced batches within the time.
async fn close_all(sessions: &[Arc<Session>], within: Duration) {
    let batches = u32::try_from(sessions.len().div_ceil(MAX_BATCH)).unwrap_or(u32::MAX).max(1);
    let pause = (within / batches).min(Duration::from_millis(500)).max(MIN_PAUSE);
    tracing::info!(sessions = sessions.len(), pause = ?pause, "closing sockets");
    for batch in sessions.chunks(MAX_BATCH) {
        batch.iter().for_each(|session| session.close(CloseReason::GoingAway));
        if batch.len() == MAX_BATCH {
            tokio::time::sleep(pause).await;
        }
    }
}

/// What this pod has in the store.
pub struct Leaving {
    /// Keeps routes of sessions on their way to other pods.
    pub hub: Arc<Hub>,
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
}

impl Leaving {
    /// Gives locks and routes back.
    ///
    /// # Errors
    /// When routes stay until their time to live.
    pub async fn give_back(&self) -> Result<(), StoreError> {
        self.hub.end_parting();
        self.releaser.flush().await;
        // Without a place it never had a route.
        let placed = self.place.taken.get();
        let routes_gone = if placed && !self.is_lost() { self.writer.confirm(&[]).await } else { Ok(()) };
        tracing::debug!(drain.stage = "locks and routes", "what the sessions had is given back");
        routes_gone
    }

    /// Takes the pod out of the members. Nothing announces it any more.
    ///
    /// # Errors
    /// When it stays one until its time to live.
    pub async fn leave(&self) -> Result<(), StoreError> {
        if self.is_lost() {
            return Ok(());
        }
        let left = self.routes.leave(&self.me).await;
        tracing::debug!(drain.stage = "membership", "the pod is no member any more");
        left
    }

    /// Another process lives under this id: routes and membership are that one's.
    fn is_lost(&self) -> bool {
        self.place.lost.is_cancelled()
    }
}
