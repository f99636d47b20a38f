//! Locks that a renewal found in other hands: who is the newer, this pod's socket or the owner in the lock?
//!
//! Nearly always that owner has taken the session over, and this pod missed its kill: the socket here has to go. But a store that
//! went back in time (a restart from a snapshot, a replica without the last writes) holds owners that are no more, and its newest
//! socket must win. No clock can tell. What tells is whether the owner still lives, and whom a socket took its session from.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daisi_ws_domain::{
    ids::ConnectionId,
    maps::Map,
    session::{KillClaim, LockOwner},
};
use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::{
    evict::Evictor,
    killer::Killer,
    leftovers::Leftovers,
    owners::{OwnerState, Owners},
};
use crate::{
    application::hub::{registry::Hub, session::Session},
    metrics::{Metrics, labels::LockRenewal as Outcome},
    ports::{Acquire, SessionLocks, log_store_error},
};

/// Locks taken back at a time.
const TAKEN_BACK_AT_ONCE: usize = 256;

/// What becomes of a socket whose lock is in other hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The owner is no more: the lock is taken from it, by compare-and-set.
    TakeBack,
    /// The owner is older: the same, and it is to let go, should it live.
    TakeBackAndKill,
    /// The owner is newer: the socket here is closed.
    Yield,
    /// Nobody can say yet: the socket stays, and is looked at again.
    Wait,
}

/// Decides by what is known of the owner, whether this socket took its session from it, and for how long the owner has been seen
/// without anybody knowing of it. Nobody renews the lock of the dead: anyone who is still there after the longest life of a lock
/// lives.
fn judge(state: OwnerState, is_predecessor: bool, unknown_for: Duration, longest_life: Duration) -> Verdict {
    match state {
        OwnerState::Gone => Verdict::TakeBack,
        _ if is_predecessor => Verdict::TakeBackAndKill,
        OwnerState::Lives => Verdict::Yield,
        OwnerState::Unknown if unknown_for > longest_life => Verdict::Yield,
        OwnerState::Unknown => Verdict::Wait,
    }
}

/// A dispute that is not settled.
#[derive(Debug)]
struct Open {
    session: Arc<Session>,
    owner: LockOwner,
    since: Instant,
}

/// What disputes are settled with.
pub(crate) struct Means {
    pub(crate) hub: Arc<Hub>,
    /// Where locks are taken back.
    pub(crate) locks: Arc<dyn SessionLocks>,
    pub(crate) owners: Arc<Owners>,
    /// Closes losers here.
    pub(crate) evictor: Evictor,
    /// Closes losers elsewhere.
    pub(crate) killer: Killer,
    /// Gives back what is left of sessions that have ended.
    pub(crate) leftovers: Arc<Leftovers>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Settles disputes about locks.
pub(crate) struct Disputes {
    means: Means,
    /// At most one a session of this pod.
    open: Mutex<Map<ConnectionId, Open>>,
}

impl std::fmt::Debug for Disputes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disputes").field("open", &self.lock().len()).finish_non_exhaustive()
    }
}

/// How long locks live, as configured now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockLife {
    /// Of one that is taken.
    pub(crate) first: Duration,
    /// The longest that any lock has.
    pub(crate) longest: Duration,
}

impl Disputes {
    /// Without any dispute yet.
    pub(crate) fn new(means: Means) -> Self {
        Self { means, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Map<ConnectionId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions whose disputes are open.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        let mut open = self.lock();
        open.retain(|connection, _| self.means.hub.contains(connection));
        open.values().map(|open| Arc::clone(&open.session)).collect()
    }

    /// Forgets the dispute about a session: its lock is its own.
    pub(crate) fn close(&self, session: &Session) {
        let mut open = self.lock();
        if !open.is_empty() {
            open.remove(session.connection());
        }
    }

    /// Settles what can be settled of these: sessions of this pod, and who stands in their locks.
    pub(crate) async fn settle(&self, lost: Vec<(Arc<Session>, LockOwner)>, life: LockLife) {
        if lost.is_empty() {
            return;
        }
        let owners: Vec<LockOwner> = lost.iter().map(|(_, owner)| owner.clone()).collect();
        let states = self.means.owners.states_of(&owners).await;
        let mut taken_back = Vec::new();
        for ((session, owner), state) in lost.into_iter().zip(states) {
            let unknown_for = self.note(&session, &owner);
            match judge(state, session.took_over_from(&owner), unknown_for, life.longest) {
                Verdict::TakeBack => taken_back.push((session, owner, false)),
                Verdict::TakeBackAndKill => taken_back.push((session, owner, true)),
                Verdict::Yield => self.yield_to(&session, &owner),
                Verdict::Wait => self.count(Outcome::Disputed),
            }
        }
        let taken_back = taken_back.into_iter().map(|(session, owner, kill)| self.take_back(session, owner, kill, life.first));
        stream::iter(taken_back).buffer_unordered(TAKEN_BACK_AT_ONCE).collect::<()>().await;
    }

    /// Notes a dispute, and returns for how long the owner has been in the lock.
    fn note(&self, session: &Arc<Session>, owner: &LockOwner) -> Duration {
        let mut open = self.lock();
        let entry = open.entry(session.connection().clone()).or_insert_with(|| Open {
            session: Arc::clone(session),
            owner: owner.clone(),
            since: Instant::now(),
        });
        if entry.owner != *owner {
            (entry.owner, entry.since) = (owner.clone(), Instant::now());
        }
        entry.since.elapsed()
    }

    fn yield_to(&self, session: &Session, owner: &LockOwner) {
        self.count(Outcome::Lost);
        tracing::info!(
            connection.id = %session.connection(), owner = %owner,
            "a session's lock is in other hands; the socket is closed"
        );
        self.close(session);
        self.means.evictor.yield_up(session);
    }

    async fn take_back(&self, session: Arc<Session>, owner: LockOwner, kill: bool, ttl: Duration) {
        let asked = Instant::now();
        match self.means.locks.take_back(session.key(), &owner, session.owner(), ttl).await {
            Ok(Acquire::Acquired { .. }) => {}
            // It is in yet other hands, or nobody knows: the next renewal sees.
            Ok(Acquire::Held(_)) => return,
            Err(error) => {
                log_store_error!(&error, "a session's lock could not be taken back");
                // It may be taken back yet, after the session has ended.
                self.means.leftovers.note_unanswered(std::slice::from_ref(&session));
                return;
            }
        }
        self.count(Outcome::Restored);
        tracing::info!(
            connection.id = %session.connection(), owner = %owner,
            "a session's lock named a socket that is older or no more, and was taken back"
        );
        session.confirm_lock(asked, ttl);
        self.close(&session);
        if kill && let Err(error) = self.means.killer.kill(&session, &owner, KillClaim::Newer).await {
            log_store_error!(&error, "an older socket could not be told to go; it finds out by its next renewal");
        }
        // It may have ended meanwhile, and its lock been released before it was taken back.
        self.means.leftovers.release_if_gone(&session);
    }

    fn count(&self, outcome: Outcome) {
        self.means.metrics.session_renewals_total.with_label_values(&[outcome.as_str()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_socket_wins_and_what_is_unknown_is_waited_for_no_longer_than_a_lock_lives() {
        let (soon, life, late) = (Duration::from_secs(1), Duration::from_secs(30), Duration::from_secs(31));
        for (state, is_predecessor, unknown_for, verdict) in [
            (OwnerState::Gone, false, soon, Verdict::TakeBack),
            (OwnerState::Gone, true, late, Verdict::TakeBack),
            (OwnerState::Lives, true, soon, Verdict::TakeBackAndKill),
            (OwnerState::Unknown, true, soon, Verdict::TakeBackAndKill),
            (OwnerState::Lives, false, soon, Verdict::Yield),
            (OwnerState::Unknown, false, soon, Verdict::Wait),
            (OwnerState::Unknown, false, life, Verdict::Wait),
            (OwnerState::Unknown, false, late, Verdict::Yield),
        ] {
            let found = judge(state, is_predecessor, unknown_for, life);
            assert_eq!(found, verdict, "{state:?}, predecessor: {is_predecessor}, for {unknown_for:?}");
        }
    }
}
