//! Clients that were asked to move, until they have, or their time is over.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use daisi_ws_domain::moving::MoveReason;
use tokio::time::{Instant, sleep_until};

use super::evict::Evictor;
use crate::application::hub::{registry::Hub, session::Session};

/// The longest that a client has: enough to be refused by a pod or two, and to try again.
pub(crate) const MOVE_WITHIN: Duration = Duration::from_secs(15);

/// Sessions whose clients were asked, in order, and until when each may serve on.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    waiting: VecDeque<(Instant, Arc<Session>)>,
}

impl Asked {
    /// Asks a client to move within this time. False if it can't, or was asked before.
    pub(crate) fn ask(&mut self, session: &Arc<Session>, reason: MoveReason, within: Duration, evictor: &Evictor) -> bool {
        let asked = evictor.ask_to_move(session, reason, within);
        if asked {
            self.note(session, Instant::now() + within);
        }
        asked
    }

    /// Notes a client that was asked by somebody else, and has until then, or as long as the one before it.
    pub(crate) fn note(&mut self, session: &Arc<Session>, until: Instant) {
        self.waiting.push_back((until, Arc::clone(session)));
    }

    /// How many have neither moved nor gone.
    pub(crate) fn still_here(&mut self, hub: &Hub) -> usize {
        self.waiting.retain(|(_, session)| hub.contains(session.connection()));
        self.waiting.len()
    }

    /// Closes those whose time is over with 1001.
    pub(crate) fn end_overdue(&mut self, evictor: &Evictor) {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, session)) = self.waiting.pop_front() {
                evictor.end_overdue(&session);
            }
        }
    }

    /// Waits until all have moved or gone, and closes those whose time is over meanwhile.
    pub(crate) async fn all_gone(&mut self, hub: &Hub, evictor: &Evictor) {
        while let Some((until, session)) = self.waiting.front() {
            if hub.contains(session.connection()) {
                sleep_until(*until).await;
                self.end_overdue(evictor);
            } else {
                self.waiting.pop_front();
            }
        }
    }
}
