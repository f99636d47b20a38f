//! Keeps the locks of this pod's sessions: one task for all of them, in pipelined batches.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use daisi_ws_domain::{
    ids::ConnectionId,
    session::{LockOwner, SessionKind},
    ttl::TtlRange,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    dispute::{Disputes, LockLife},
    release::Releaser,
};
use crate::{
    application::hub::{registry::Hub, session::Session},
    config::Config,
    metrics::{Metrics, labels::LockRenewal as Outcome},
    ports::{LockRenewal, Renewal, SessionLocks, StoreError, log_store_error},
    runtime::backoff::Backoff,
};

/// Locks in one round trip.
const MAX_BATCH: usize = 500;
/// A sweep asked for, or one that failed, is not repeated sooner than after the first of these; nor does a fleet sweep in step when the store is back.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(1));

/// Locks in dispute are looked at again after this time.
const DISPUTED_PAUSE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));

/// What renewal works with.
#[derive(Clone)]
pub struct Renewer {
    /// The sessions.
    pub hub: Arc<Hub>,
    /// Their locks.
    pub locks: Arc<dyn SessionLocks>,
    /// Settles who has a lock that is found in other hands.
    pub disputes: Arc<Disputes>,
    /// Gives back locks of sessions that ended during the renewal.
    pub releaser: Releaser,
    /// Asked for when kills or the store's data may have been missed.
    pub sweep: Arc<Notify>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Sessions of renewals without an answer: one may yet be carried out, after its session has ended.
    pub unanswered: Arc<Mutex<HashMap<ConnectionId, Arc<Session>>>>,
}

impl Renewer {
    /// Renews every lock each refresh interval, and at once when asked, until cancelled.
    pub async fn run(&self) {
        let (mut began, mut pauses) = (Instant::now(), PAUSES);
        loop {
            let due = began + self.config.borrow().app.ttl_refresh_interval;
            let disputed = self.disputes.sessions();
            let renewed = tokio::select! {
                biased;
                () = async { tokio::select! { () = sleep_until(due) => {}, () = self.sweep.notified() => {} } } => {
                    began = Instant::now();
                    self.renew_all().await
                }
                () = tokio::time::sleep(DISPUTED_PAUSE.nth(1)), if !disputed.is_empty() => self.renew(&disputed).await,
            };
            match renewed {
                Ok(()) => pauses.reset(),
                Err(error) => {
                    log_store_error!(&error, "session locks could not be renewed");
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
        self.renew(&sessions).await
    }

    async fn renew(&self, sessions: &[Arc<Session>]) -> Result<(), StoreError> {
        let (mut result, mut lost) = (Ok(()), Vec::new());
        for batch in sessions.chunks(MAX_BATCH) {
            let (renewals, asked) = (self.renewals(batch), Instant::now());
            match self.locks.renew(&renewals).await {
                Ok(outcomes) => {
                    for ((session, renewal), outcome) in batch.iter().zip(&renewals).zip(outcomes) {
                        lost.extend(self.apply(session, asked, renewal.ttl, outcome).map(|owner| (Arc::clone(session), owner)));
                    }
                    self.release_unanswered();
                }
                Err(error) => {
                    self.count(Outcome::Error, batch.len());
                    let batch = batch.iter().map(|session| (session.connection().clone(), Arc::clone(session)));
                    self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).extend(batch);
                    result = Err(error);
                }
            }
        }
        self.disputes.settle(lost, self.lock_life()).await;
        result
    }

    /// The store answers again, so what it was asked before is done: a lock that a late renewal took for a session that has ended is given back.
    fn release_unanswered(&self) {
        let unanswered = std::mem::take(&mut *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, session) in unanswered.iter().filter(|(connection, _)| !self.hub.contains(connection)) {
            self.releaser.release(session);
        }
    }

    fn lock_life(&self) -> LockLife {
        let config = self.config.borrow();
        let (first, rule) = (config.app.session_ttl, &config.adaptive_ttl.session_lock);
        LockLife { first, longest: if rule.enabled { first.max(rule.max_ttl) } else { first } }
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

    /// Takes over what a renewal came to that was asked for, for a time to live. Returns the owner of a lock that is another's.
    fn apply(&self, session: &Session, asked: Instant, ttl: Duration, outcome: Renewal) -> Option<LockOwner> {
        match outcome {
            Renewal::Renewed => self.count(Outcome::Renewed, 1),
            Renewal::Restored => self.count(Outcome::Restored, 1),
            Renewal::Lost(owner) => return Some(owner),
        }
        session.confirm_lock(asked, ttl);
        self.disputes.close(session);
        // It may have ended, and its lock been released, between the snapshot and the renewal, which then took the lock again.
        if !self.hub.contains(session.connection()) {
            self.releaser.release(session);
        }
        None
    }

    fn count(&self, outcome: Outcome, locks: usize) {
        self.metrics.session_renewals_total.with_label_values(&[outcome.as_str()]).inc_by(locks as u64);
    }

    fn show_buffers(&self, sessions: &[Arc<Session>]) {
        let capacity = self.config.borrow().app.websocket_message_buffer_size;
        for kind in SessionKind::ALL {
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
