//! Asks the clients of a pod that drains to move, before it is gone.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{close::CloseReason, moving::MoveReason};
use tokio::time::{Instant, sleep};

use crate::application::{
    admission::{
        asked::{Asked, MOVE_WITHIN},
        evict::Evictor,
    },
    hub::{registry::Hub, session::Session},
};

/// Until load balancers have seen that the pod is not ready: a second socket is to land on another. A share of the time at most.
const OUT_OF_BALANCERS: Duration = Duration::from_secs(2);
const OUT_OF_BALANCERS_SHARE: u32 = 8;
/// Clients that are asked in one go, and the shortest and longest pause between two goes.
const BATCH: usize = 20;
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// The share of the time in which all are asked.
const ASKING_SHARE: u32 = 2;

/// Asks these clients to move, in paced batches, all of them until shortly before the deadline. Who has not moved within its time
/// is closed with 1001. Cancel-safe: nobody who was asked is asked again.
pub(super) async fn move_all(hub: &Hub, evictor: &Evictor, sessions: &[Arc<Session>], deadline: Instant) {
    if sessions.is_empty() {
        return;
    }
    let within = deadline.saturating_duration_since(Instant::now());
    let settling = OUT_OF_BALANCERS.min(within / OUT_OF_BALANCERS_SHARE);
    let batches = u32::try_from(sessions.len().div_ceil(BATCH)).unwrap_or(u32::MAX);
    let pause = ((within - settling) / ASKING_SHARE / batches).clamp(MIN_PAUSE, MAX_PAUSE);
    tracing::info!(sessions = sessions.len(), pause = ?pause, "asking clients to move");
    sleep(settling).await;
    let mut asked = Asked::default();
    for batch in sessions.chunks(BATCH) {
        let now = Instant::now();
        let until = deadline.min(now + MOVE_WITHIN);
        for session in batch {
            if asked.ask(session, MoveReason::Drain, until.saturating_duration_since(now), evictor) {
                continue;
            }
            match session.moving() {
                // For another reason, just now.
                Some(moving) => asked.note(session, until.min(moving.asked + moving.within)),
                None => session.close(CloseReason::GoingAway),
            }
        }
        asked.end_overdue(evictor);
        sleep(pause).await;
    }
    asked.all_gone(hub, evictor).await;
}
