//! Until when locks are known to be held, where the policy is `strict`: a socket whose lock was not confirmed in time is closed
//! before anybody else can have it.
//!
//! One timer for the pod. A session has one entry, which is not touched when its lock is renewed: when it is due, the session is
//! asked until when its lock is confirmed by now, and gets another. So a session costs a step each time that its lock would have
//! run out, and nothing in between.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::{close::CloseReason, ids::ConnectionId};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::evict::Evictor;
use crate::{
    application::hub::{registry::Hub, session::Session},
    config::{Config, OutagePolicy},
};

/// Deadlines this close together are one wake-up. Much less than the margin within which a socket has to say goodbye.
const TICK: Duration = Duration::from_millis(100);

/// The deadlines of a pod's locks.
#[derive(Debug)]
pub struct LockDeadlines {
    began: Instant,
    watching: AtomicBool,
    by_tick: Mutex<BTreeMap<u64, Vec<ConnectionId>>>,
    /// A deadline came before all others.
    earlier: Notify,
}

impl Default for LockDeadlines {
    fn default() -> Self {
        Self { began: Instant::now(), watching: AtomicBool::new(false), by_tick: Mutex::default(), earlier: Notify::new() }
    }
}

impl LockDeadlines {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<ConnectionId>>> {
        self.by_tick.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches over a session that has just got its lock.
    pub fn watch(&self, session: &Session) {
        if !self.watching.load(Ordering::Acquire) {
            return;
        }
        let Some(until) = session.lock_confirmed_until() else { return };
        let tick = self.tick_after(until);
        let is_first = {
            let mut by_tick = self.lock();
            by_tick.entry(tick).or_default().push(session.connection().clone());
            by_tick.first_key_value().is_some_and(|(first, of_tick)| *first == tick && of_tick.len() == 1)
        };
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Closes sockets at their deadlines for as long as the policy is `strict`, until cancelled.
    pub async fn run(&self, hub: &Hub, evictor: &Evictor, mut config: watch::Receiver<Arc<Config>>) {
        self.watching.store(false, Ordering::Release);
        loop {
            let is_strict = config.borrow_and_update().app.redis_outage_policy == OutagePolicy::Strict;
            let was_strict = self.watching.swap(is_strict, Ordering::AcqRel);
            if is_strict != was_strict {
                self.lock().clear();
            }
            if is_strict && !was_strict {
                hub.sessions().iter().for_each(|session| self.watch(session));
            }
            let next = self.lock().first_key_value().map(|(tick, _)| self.at(*tick));
            tokio::select! {
                biased;
                () = sleep_until(next.unwrap_or(self.began)), if next.is_some() => self.close_overdue(hub, evictor),
                () = self.earlier.notified() => {}
                // Nobody may change it any more.
                () = async { if config.changed().await.is_err() { std::future::pending().await } } => {}
            }
        }
    }

    fn close_overdue(&self, hub: &Hub, evictor: &Evictor) {
        let now = Instant::now();
        let due = {
            let mut by_tick = self.lock();
            let later = by_tick.split_off(&(self.tick_before(now) + 1));
            std::mem::replace(&mut *by_tick, later)
        };
        let mut closed = 0;
        for session in due.into_values().flatten().filter_map(|connection| hub.get(&connection)) {
            if session.is_lock_unconfirmed(now) {
                closed += usize::from(evictor.evict(session.connection(), CloseReason::LockUnconfirmed));
            } else {
                self.watch(&session);
            }
        }
        if closed > 0 {
            tracing::warn!(
                sessions = closed,
                "locks could not be renewed within their time to live; sockets are closed (policy strict)"
            );
        }
    }

    /// The first tick that is not before the moment.
    fn tick_after(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began).as_nanos();
        u64::try_from(since.div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX)
    }

    fn tick_before(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began).as_nanos();
        u64::try_from(since / TICK.as_nanos()).unwrap_or(u64::MAX - 1)
    }

    fn at(&self, tick: u64) -> Instant {
        let tick = u32::try_from(tick).unwrap_or(u32::MAX);
        self.began + TICK.saturating_mul(tick)
    }
}
