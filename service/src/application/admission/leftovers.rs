//! Locks that a renewal took for sessions that had ended meanwhile: given back once more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daisi_ws_domain::{ids::ConnectionId, maps::Map};

use super::release::Releaser;
use crate::{
    application::hub::{registry::Hub, session::Session},
    ports::{SessionLocks, StoreError},
};

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
        self.lock().extend(sessions);
    }

    /// As [`release_unanswered`](Self::release_unanswered), where no session is left whose renewal would show that the store
    /// answers again: it is asked to release the locks of those that have ended, and once it has answered, they are gone for good.
    ///
    /// # Errors
    /// When the store does not answer; they are remembered.
    pub(crate) async fn release_unaccompanied(&self, locks: &dyn SessionLocks) -> Result<(), StoreError> {
        let ended = |session: &&Arc<Session>| !self.hub.contains(session.connection());
        let owner = |session: &Arc<Session>| (session.key().clone(), session.owner().clone());
        let unanswered: Vec<_> = self.lock().values().filter(ended).map(owner).collect();
        if !unanswered.is_empty() {
            locks.release(&unanswered).await?;
            self.release_unanswered();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Map<ConnectionId, Arc<Session>>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store answers again, so what it was asked before is done: a lock that a late renewal took for a session that has ended
    /// is given back.
    pub(crate) fn release_unanswered(&self) {
        let unanswered = std::mem::take(&mut *self.lock());
        unanswered.values().for_each(|session| self.release_if_gone(session));
    }
}
