//! Keeps the locks of this pod's sessions: one task for all of them, in pipelined batches.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    evict::Evictor,
    hub::Hub,
    ports::{LockRenewal, Renewal, SessionLocks, StoreError},
    release::Releaser,
    session::Session,
};
use crate::{
    backoff::Backoff,
    config::{Config, OutagePolicy},
    domain::{close::CloseReason, session::SessionKind, ttl::TtlRange},
    metrics::Metrics,
};

/// Locks in one round trip.
const MAX_BATCH: usize = 500;
/// A sweep asked for, or one that failed, is not repeated sooner than after the first of these; nor does a fleet sweep in step when the store is back.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(1));

/// What renewal works with.
#[derive(Clone)]
pub struct Renewer {
    /// The sessions.
    pub hub: Arc<Hub>,
    /// Their locks.
    pub locks: Arc<dyn SessionLocks>,
    /// Closes sessions whose lock is another's.
    pub evictor: Evictor,
    /// Gives back locks of sessions that ended during the renewal.
    pub releaser: Releaser,
    /// Asked for when kills or the store's data may have been missed.
    pub sweep: Arc<Notify>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Renewer {
    /// Renews every lock each refresh interval, and at once when asked, until cancelled.
    pub async fn run(&self) {
        let (mut confirmed_at, mut pauses) = (Instant::now(), PAUSES);
        loop {
            let period = self.config.borrow().app.ttl_refresh_interval;
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = self.sweep.notified() => {}
            }
            match self.renew_all().await {
                Ok(()) => {
                    confirmed_at = Instant::now();
                    pauses.reset();
                }
                Err(error) => {
                    tracing::debug!(%error, "session locks could not be renewed");
                    self.apply_outage_policy(confirmed_at);
                    // Sooner than the next turn: locks are the shorter-lived the longer this takes.
                    self.sweep.notify_one();
                }
            }
            tokio::time::sleep(pauses.pause()).await;
        }
    }

    /// Renews every lock once.
    ///
    /// # Errors
    /// When a batch failed; the others have been renewed all the same.
    pub async fn renew_all(&self) -> Result<(), StoreError> {
        let sessions: Vec<Arc<Session>> = self.hub.sessions().into_iter().filter(|session| session.is_locked()).collect();
        self.show_buffers(&sessions);
        let mut result = Ok(());
        for batch in sessions.chunks(MAX_BATCH) {
            let renewals = self.renewals(batch);
            match self.locks.renew(&renewals).await {
                Ok(outcomes) => batch.iter().zip(outcomes).for_each(|(session, outcome)| self.apply(session, &outcome)),
                Err(error) => {
                    self.count("error", batch.len());
                    result = Err(error);
                }
            }
        }
        result
    }

    fn renewals(&self, batch: &[Arc<Session>]) -> Vec<LockRenewal> {
        let config = self.config.borrow().clone();
        let rule = &config.adaptive_ttl.session_lock;
        let range = TtlRange { min: rule.min_ttl, max: rule.max_ttl, activity_threshold: rule.activity_threshold };
        let of_session = |session: &Arc<Session>| LockRenewal {
            key: session.key().clone(),
            owner: session.owner().clone(),
            ttl: if rule.enabled { range.for_idle(session.idle()) } else { config.app.session_ttl },
            chat: session.chat(),
            chat_ttl: config.app.selected_chat_ttl,
        };
        batch.iter().map(of_session).collect()
    }

    fn apply(&self, session: &Arc<Session>, outcome: &Renewal) {
        match outcome {
            Renewal::Renewed => self.count("renewed", 1),
            Renewal::Restored => self.count("restored", 1),
            Renewal::Lost(owner) => {
                self.count("lost", 1);
                tracing::info!(connection.id = %session.connection(), owner = %owner, "a session's lock is in other hands; the socket is closed");
                self.evictor.evict(session.connection(), CloseReason::SessionReplaced);
                return;
            }
        }
        // It may have ended, and its lock been released, between the snapshot and the renewal, which then took the lock again.
        if !self.hub.contains(session.connection()) {
            self.releaser.release(session);
        }
    }

    fn count(&self, outcome: &str, locks: usize) {
        self.metrics.session_renewals_total.with_label_values(&[outcome]).inc_by(locks as u64);
    }

    fn apply_outage_policy(&self, confirmed_at: Instant) {
        let (policy, ttl) = {
            let config = self.config.borrow();
            (config.app.redis_outage_policy, config.app.session_ttl)
        };
        if policy == OutagePolicy::Strict && confirmed_at.elapsed() >= ttl {
            let sessions = self.hub.sessions();
            if !sessions.is_empty() {
                tracing::warn!(
                    sessions = sessions.len(),
                    "locks could not be renewed within their time to live; sockets are closed (policy strict)"
                );
            }
            for session in sessions {
                self.evictor.evict(session.connection(), CloseReason::LockUnconfirmed);
            }
        }
    }

    fn show_buffers(&self, sessions: &[Arc<Session>]) {
        let capacity = self.config.borrow().app.websocket_message_buffer_size;
        for kind in [SessionKind::User, SessionKind::Admin] {
            let (count, used) = sessions
                .iter()
                .filter(|session| session.kind() == kind)
                .fold((0, 0), |(count, used), session| (count + 1, used + session.mailbox().len()));
            let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            self.metrics.websocket_buffer_used_count.with_label_values(&[kind.as_str()]).set(gauge(used));
            self.metrics.websocket_buffer_capacity.with_label_values(&[kind.as_str()]).set(gauge(count * capacity));
        }
    }
}
