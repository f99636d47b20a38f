//! Renews locks: so many in one round trip, and what comes of each.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{session::LockOwner, ttl::TtlRange};
use tokio::{sync::watch, time::Instant};

use crate::{
    application::{
        admission::{
            dispute::{Disputes, LockLife},
            leftovers::Leftovers,
        },
        hub::session::Session,
    },
    config::Config,
    metrics::{Metrics, labels::LockRenewal as Outcome},
    ports::{LockRenewal, Renewal, SessionLocks, StoreError},
};

/// Locks in one round trip.
const MAX_BATCH: usize = 500;

/// What renewing locks works with.
pub(crate) struct Batches {
    pub(crate) locks: Arc<dyn SessionLocks>,
    /// Settles who has a lock that is found in other hands.
    pub(crate) disputes: Disputes,
    /// Gives back locks of sessions that ended during the renewal.
    pub(crate) leftovers: Arc<Leftovers>,
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Batches {
    /// Renews the locks of these sessions, in pipelined batches, and settles whose lock is in other hands.
    ///
    /// # Errors
    /// When a batch failed; the others have been renewed all the same.
    pub(super) async fn renew(&self, sessions: &[Arc<Session>]) -> Result<(), StoreError> {
        if sessions.is_empty() {
            return self.leftovers.release_unaccompanied(&*self.locks).await;
        }
        let (mut result, mut lost) = (Ok(()), Vec::new());
        for batch in sessions.chunks(MAX_BATCH) {
            let (renewals, asked) = (self.renewals(batch), Instant::now());
            match self.locks.renew(&renewals).await {
                Ok(outcomes) => {
                    for ((session, renewal), outcome) in batch.iter().zip(&renewals).zip(outcomes) {
                        lost.extend(self.apply(session, asked, renewal.ttl, outcome).map(|owner| (Arc::clone(session), owner)));
                    }
                    self.leftovers.release_unanswered();
                }
                Err(error) => {
                    self.count(Outcome::Error, batch.len());
                    self.leftovers.note_unanswered(batch);
                    result = Err(error);
                }
            }
        }
        self.disputes.settle(lost, self.lock_life()).await;
        result
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
        self.leftovers.release_if_gone(session);
        None
    }

    fn count(&self, outcome: Outcome, locks: usize) {
        self.metrics.session_renewals_total.with_label_values(&[outcome.as_str()]).inc_by(locks as u64);
    }
}
