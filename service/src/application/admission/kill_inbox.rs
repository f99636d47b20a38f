//! Where a kill listener's signals wait: bounded, and honest about what did not fit.
//!
//! Both backends of the kill bus feed one; it is here so that they lose kills in the same way.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use daisi_ws_domain::session::Kill;
use tokio::sync::Notify;

use crate::ports::KillSignal;

/// Kills that wait for a pod that is busy. A drain of a whole peer fits; what does not is caught by the sweep that follows a
/// resubscription.
pub(crate) const CAPACITY: usize = 4096;

#[derive(Debug, Default)]
struct State {
    kills: VecDeque<Kill>,
    missed: bool,
}

/// The signals of one listener. Any number may put in, one takes out; nobody waits to put in.
#[derive(Debug)]
pub(crate) struct KillInbox {
    state: Mutex<State>,
    capacity: usize,
    filled: Notify,
}

impl KillInbox {
    /// An empty inbox for so many kills.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), capacity, filled: Notify::new() }
    }

    /// Puts a kill in. One that does not fit is dropped, and a resubscription signalled instead: the sweep finds what it was
    /// about.
    pub(crate) fn kill(&self, kill: Kill) {
        let mut state = self.lock();
        if state.kills.len() < self.capacity {
            state.kills.push_back(kill);
        } else {
            state.missed = true;
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Notes that kills may have been missed. Many such notes are one signal.
    pub(crate) fn resubscribed(&self) {
        self.lock().missed = true;
        self.filled.notify_one();
    }

    /// Waits for the next signal. Cancel-safe; only one may wait.
    pub(crate) async fn next(&self) -> KillSignal {
        loop {
            if let Some(signal) = self.take() {
                return signal;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<KillSignal> {
        let mut state = self.lock();
        if std::mem::take(&mut state.missed) {
            return Some(KillSignal::Resubscribed);
        }
        state.kills.pop_front().map(KillSignal::Kill)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::{
        ids::{AdminId, PodId},
        session::{KillClaim, SessionKey},
    };

    use super::*;

    fn kill(admin: &str) -> Kill {
        let key = SessionKey::Admin { admin: AdminId::parse(admin).unwrap() };
        Kill { key, new_pod: PodId::parse("pod-b").unwrap(), connection: None, victim: None, claim: KillClaim::Newer }
    }

    #[tokio::test]
    async fn a_kill_that_does_not_fit_becomes_a_resubscription() {
        let inbox = KillInbox::new(2);
        for admin in ["a", "b", "c"] {
            inbox.kill(kill(admin));
        }
        assert_eq!(inbox.next().await, KillSignal::Resubscribed);
        assert_eq!(inbox.next().await, KillSignal::Kill(kill("a")));
        assert_eq!(inbox.next().await, KillSignal::Kill(kill("b")));
    }

    #[tokio::test]
    async fn a_waiter_is_woken() {
        let inbox = KillInbox::new(1);
        let (signal, ()) = tokio::join!(inbox.next(), async { inbox.kill(kill("a")) });
        assert_eq!(signal, KillSignal::Kill(kill("a")));
    }
}
