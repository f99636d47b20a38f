//! Locks that a renewal took for sessions that had ended meanwhile: given back once more.

use std::sync::{Arc, Mutex, PoisonError};

use daisi_ws_domain::{ids::ConnectionId, maps::Map};

use super::release::Releaser;
use crate::application::hub::{registry::Hub, session::Session};

/// Gives back what late renewals took.
#[derive(Debug)]
pub(crate) struct Leftovers {
    hub: Arc<Hub>,
    releaser: Releaser,
    /// Sessions of renewals without an answer: one may yet be carried out, after its session has ended.
    unanswered: Mutex<Map<ConnectionId, Arc<Session>>>,
}

impl Leftovers {
    /// None yet.
    pub(crate) fn new(hub: Arc<Hub>, releaser: Releaser) -> Self {
        Self { hub, releaser, unanswered: Mutex::default() }
    }

    /// A session's lock was taken or renewed just now. The session may have ended, and its lock been released, between the
    /// snapshot and that.
    pub(crate) fn release_if_gone(&self, session: &Session) {
        if !self.hub.contains(session.connection()) {
            self.releaser.release(session);
        }
    }

    /// Renewals of these had no answer.
    pub(crate) fn note_unanswered(&self, sessions: &[Arc<Session>]) {
        let sessions = sessions.iter().map(|session| (session.connection().clone(), Arc::clone(session)));
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).extend(sessions);
    }

    /// The store answers again, so what it was asked before is done: a lock that a late renewal took for a session that has ended
    /// is given back.
    pub(crate) fn release_unanswered(&self) {
        let unanswered = std::mem::take(&mut *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner));
        unanswered.values().for_each(|session| self.release_if_gone(session));
    }
}
