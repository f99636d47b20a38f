//! Goodbyes under way: how long they may take, and when all have been said.
//!
//! A session is out of the hub, its lock free, before its client is told why, and perhaps before its socket's task knows of it;
//! writing what still waits for it may take long. Nobody waits for that but a pod that drains: until no socket is left.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// So many may take long at a time, while the pod does not drain; of more, each has a moment.
const MAX_LONG: usize = 1024;
/// That moment.
const SHORT: Duration = Duration::from_secs(1);

/// What was cut: goodbyes that did not come to their end, and events that were never written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Sockets.
    pub sockets: usize,
    /// Events that waited for them.
    pub events: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Sockets that have not come to their end, whether they know of it or not.
    open: usize,
    under_way: usize,
    /// Until when the pod that drains waits for them.
    until: Option<Instant>,
    cut: Cut,
}

/// The goodbyes of a pod.
#[derive(Debug, Default)]
pub struct Goodbyes {
    state: Mutex<State>,
    all_said: Notify,
    /// The pod is at its end.
    over: CancellationToken,
}

impl Goodbyes {
    /// None yet. `over` ends each at once.
    #[must_use]
    pub fn new(over: CancellationToken) -> Self {
        Self { over, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod drains: each that begins from now on may take until then.
    pub(crate) fn allow_until(&self, until: Instant) {
        let mut state = self.lock();
        state.until = Some(until);
        state.cut = Cut::default();
    }

    /// A socket is open, and will have its goodbye, until what is returned is dropped.
    #[must_use]
    pub(crate) fn owe(self: &Arc<Self>) -> Owed {
        self.lock().open += 1;
        Owed(Arc::clone(self))
    }

    /// One begins, which may take so long if the pod does not drain.
    #[must_use]
    pub fn begin(&self, usual: Duration) -> Goodbye<'_> {
        let mut state = self.lock();
        let now = Instant::now();
        let until = state.until.unwrap_or(if state.under_way < MAX_LONG { now + usual } else { now + SHORT.min(usual) });
        state.under_way += 1;
        Goodbye { all: self, until, cut: None }
    }

    /// Waits until nothing more may be said.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Waits until no socket is open.
    pub(crate) async fn all_said(&self) {
        loop {
            let said = self.all_said.notified();
            tokio::pin!(said);
            said.as_mut().enable();
            if self.lock().open == 0 {
                return;
            }
            said.await;
        }
    }

    /// What was cut since the pod began to drain.
    #[must_use]
    pub fn cut(&self) -> Cut {
        self.lock().cut
    }
}

/// A goodbye under way, until it is dropped.
#[derive(Debug)]
pub struct Goodbye<'a> {
    all: &'a Goodbyes,
    until: Instant,
    cut: Option<usize>,
}

impl Goodbye<'_> {
    /// How long it may take.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Notes that it does not come to its end, with so many events unwritten.
    pub fn cut(mut self, events: usize) {
        self.cut = Some(events);
    }
}

impl Drop for Goodbye<'_> {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        state.under_way -= 1;
        if let Some(events) = self.cut {
            state.cut = Cut { sockets: state.cut.sockets + 1, events: state.cut.events + events };
        }
    }
}

/// A socket that is open, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owed(Arc<Goodbyes>);

impl Drop for Owed {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.open -= 1;
        if state.open == 0 {
            drop(state);
            self.0.all_said.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_has_its_usual_time_or_that_of_the_drain_and_of_very_many_each_a_moment() {
        let goodbyes = Goodbyes::default();
        let now = Instant::now();
        let many: Vec<_> = (0..MAX_LONG).map(|_| goodbyes.begin(USUAL)).collect();
        assert!(many.iter().all(|goodbye| goodbye.until() == now + USUAL));
        assert_eq!(goodbyes.begin(USUAL).until(), now + SHORT);
        goodbyes.allow_until(now + Duration::from_secs(20));
        assert_eq!(goodbyes.begin(USUAL).until(), now + Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_socket_ends_the_wait_begun_or_not_and_what_was_cut_is_added_up() {
        let goodbyes = Arc::new(Goodbyes::default());
        goodbyes.all_said().await;
        let (first, second) = (goodbyes.owe(), goodbyes.owe());
        let mut wait = std::pin::pin!(goodbyes.all_said());
        goodbyes.begin(USUAL).cut(7);
        drop(first);
        assert!(futures_util::poll!(wait.as_mut()).is_pending(), "the second has not begun to say goodbye");
        drop(second);
        wait.await;
        assert_eq!(goodbyes.cut(), Cut { sockets: 1, events: 7 });
    }
}
