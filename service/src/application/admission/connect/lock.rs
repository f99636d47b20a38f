//! Takes a session's lock, from its owner if it has one.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    ids::ChatId,
    session::{KillClaim, LockOwner},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::error::{ConnectError, STORE_PATIENCE};
use crate::{
    application::{
        admission::{
            killer::{Asked, Killer},
            lock_deadlines::LockDeadlines,
            owners::{OwnerState, Owners},
        },
        hub::session::Session,
    },
    config::Config,
    metrics::Metrics,
    ports::{Acquire, SessionLocks, StoreError},
    runtime::backoff::Backoff,
};

/// First pause between two attempts on a lock that is held; it doubles, up to `redis.session_lock_retry_delay_ms`.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Enough that two newcomers do not try in step, little enough that an owner has nearly all of its time to let go.
const LOCK_JITTER: f64 = 0.2;
/// Attempts on a lock before its owner is replaced by compare-and-set, if it is not known to be gone.
const POLITE_ATTEMPTS: u32 = 6;
/// All attempts; who loses that often is outpaced by other newcomers.
const MAX_ATTEMPTS: u32 = 12;

/// An owner that is to let go.
struct Rival<'a> {
    owner: LockOwner,
    /// It does not live: nobody lets go, and nobody is harmed.
    is_gone: bool,
    asking: Option<BoxFuture<'a, OwnerState>>,
}

/// What becomes of a wish for a lock.
pub(super) enum Locking {
    /// It is ours.
    Locked(Locked),
    /// This owner's client was asked to move: it serves on until the lock is [seized](Locker::seize).
    Serves(LockOwner),
}

/// A lock that was taken.
pub(super) struct Locked {
    /// The chat that the session had selected.
    pub(super) saved_chat: Option<ChatId>,
    /// Was it taken from somebody?
    pub(super) took_over: bool,
}

/// Takes the lock of a session, if need be from the socket that has it.
pub struct Locker {
    /// Where they are.
    pub locks: Arc<dyn SessionLocks>,
    /// Knows whether owners of locks still live.
    pub owners: Arc<Owners>,
    /// The way to owners.
    pub killer: Killer,
    /// Watches over locks, where they must be confirmed.
    pub deadlines: Arc<LockDeadlines>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Locker {
    /// Takes the lock, unless this may be a second socket and the owner is one that serves on.
    pub(super) async fn lock(&self, session: &Session, config: &Config) -> Result<Locking, ConnectError> {
        let kind = session.kind().as_str();
        let mut pauses = Backoff::new(FIRST_PAUSE, config.redis.session_lock_retry_delay).with_jitter(LOCK_JITTER);
        let mut rival: Option<Rival<'_>> = None;
        for attempt in 1..=MAX_ATTEMPTS {
            if let Some(reason) = session.close_reason() {
                return Err(reason.into());
            }
            let replaced = rival.as_ref().filter(|rival| rival.is_gone || attempt > POLITE_ATTEMPTS);
            let replaced = replaced.map(|rival| (rival.owner.clone(), rival.is_gone));
            match self.attempt(session, config, replaced.as_ref().map(|(owner, _)| owner)).await? {
                Acquire::Acquired { saved_chat } => {
                    if let Some((owner, false)) = &replaced {
                        // It did not let go in time: whatever it is doing, it is to stop.
                        self.kill(session, owner, KillClaim::Newer).await?;
                    }
                    return Ok(Locking::Locked(Locked { saved_chat, took_over: rival.is_some() }));
                }
                Acquire::Held(owner) => {
                    if rival.is_none() {
                        self.metrics.session_conflicts_total.with_label_values(&[kind]).inc();
                    }
                    let rival = match &mut rival {
                        Some(known) if known.owner == owner => known,
                        other => match self.challenge(session, owner.clone()).await? {
                            Some(found) => other.insert(found),
                            None => return Ok(Locking::Serves(owner)),
                        },
                    };
                    wait_for(session, rival, pauses.pause()).await?;
                }
            }
        }
        Err(ConnectError::Replaced)
    }

    /// Takes the lock from an owner that serves on, and tells it so. If another has it by now, that one keeps it.
    pub(super) async fn seize(&self, session: &Session, owner: &LockOwner, config: &Config) -> Result<Locked, ConnectError> {
        if let Some(reason) = session.close_reason() {
            return Err(reason.into());
        }
        match self.attempt(session, config, Some(owner)).await? {
            Acquire::Acquired { saved_chat } => {
                self.kill(session, owner, KillClaim::Moved).await?;
                Ok(Locked { saved_chat, took_over: true })
            }
            Acquire::Held(_) => Err(ConnectError::Replaced),
        }
    }

    /// Tells an owner to let go, and begins to find out whether it lives. Nothing if it serves on until this second socket of its
    /// client's has the lock.
    async fn challenge(&self, session: &Session, owner: LockOwner) -> Result<Option<Rival<'_>>, ConnectError> {
        session.add_predecessor(&owner);
        let claim = if session.can_move() { KillClaim::Second } else { KillClaim::Newer };
        match self.kill(session, &owner, claim).await? {
            Asked::Serves => return Ok(None),
            Asked::Gone => return Ok(Some(Rival { owner, is_gone: true, asking: None })),
            Asked::Elsewhere => {}
        }
        let asked_about = owner.clone();
        let asking = async move {
            // Who lives has let go by then, and its pod need not be asked.
            sleep(2 * FIRST_PAUSE).await;
            self.owners.state_of(&asked_about).await
        };
        Ok(Some(Rival { owner, is_gone: false, asking: Some(asking.boxed()) }))
    }

    /// One attempt: politely, or by compare-and-set on an owner that does not let go.
    async fn attempt(&self, session: &Session, config: &Config, replace: Option<&LockOwner>) -> Result<Acquire, ConnectError> {
        let (key, owner, ttl) = (session.key(), session.owner(), config.app.session_ttl);
        let kind = session.kind().as_str();
        self.metrics.session_lock_attempts_total.with_label_values(&[kind]).inc();
        session.set_lock_asked();
        let asked = Instant::now();
        let attempt = async {
            match replace {
                Some(seen) => self.locks.replace(key, seen, owner, ttl).await,
                None => self.locks.acquire(key, owner, ttl).await,
            }
        };
        let waiting = session.worker().wait_for(attempt);
        let outcome = timeout(STORE_PATIENCE, waiting).await.unwrap_or(Err(StoreError::TimedOut(STORE_PATIENCE)))?;
        if matches!(outcome, Acquire::Acquired { .. }) {
            self.metrics.session_lock_success_total.with_label_values(&[kind]).inc();
            session.set_locked(asked, ttl);
            self.deadlines.watch(session);
        }
        Ok(outcome)
    }

    /// Asks an owner to let go.
    async fn kill(&self, session: &Session, owner: &LockOwner, claim: KillClaim) -> Result<Asked, ConnectError> {
        let sent = timeout(STORE_PATIENCE, self.killer.kill(session, owner, claim)).await;
        Ok(sent.unwrap_or(Err(StoreError::TimedOut(STORE_PATIENCE)))?)
    }
}

/// Gives an owner time to let go, unless it is gone.
async fn wait_for(session: &Session, rival: &mut Rival<'_>, pause: Duration) -> Result<(), ConnectError> {
    let until = Instant::now() + pause;
    while !rival.is_gone {
        let asking = rival.asking.as_mut();
        let state = async move {
            match asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = session.closed() => return Err(reason.into()),
            state = state => {
                rival.is_gone = state == OwnerState::Gone;
                rival.asking = None;
            }
            () = sleep_until(until) => return Ok(()),
        }
    }
    Ok(())
}
