//! Exclusive sessions.

use std::time::Duration;

use async_trait::async_trait;
use daisi_ws_domain::{
    ids::ChatId,
    session::{LockOwner, SessionKey},
};

use super::errors::StoreError;

/// Outcome of trying to take a session's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquire {
    /// The lock is ours. Carries the chat that the session had selected before, if that is still remembered.
    Acquired {
        /// The chat to restore before `ready`.
        saved_chat: Option<ChatId>,
    },
    /// Somebody holds it: the owner as of this call.
    Held(LockOwner),
}

/// One lock to renew, with the chat that is remembered beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRenewal {
    /// The session whose lock it is.
    pub key: SessionKey,
    /// The owner that must be in the lock.
    pub owner: LockOwner,
    /// The lock's new time to live.
    pub ttl: Duration,
    /// The selected chat, rewritten so that it outlives a store that came back empty.
    pub chat: Option<ChatId>,
    /// Time to live of the selected chat.
    pub chat_ttl: Duration,
}

/// Outcome of renewing one lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// It was ours and lives on.
    Renewed,
    /// It was gone (the store came back empty, or we were frozen past the TTL) and is ours again.
    Restored,
    /// It is another's; the socket must go.
    Lost(LockOwner),
}

/// Exclusive sessions. Every change is compare-and-set or compare-and-delete on the owner: nobody can renew, release or overwrite
/// another's lock.
///
/// Anyone who drops the future of an acquisition or replacement, or gets an error from it, has nothing: should it be carried out
/// all the same, the lock is given back after that.
#[async_trait]
pub trait SessionLocks: Send + Sync {
    /// Takes the lock if nobody holds it. One round trip, the saved chat included.
    async fn acquire(&self, key: &SessionKey, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError>;

    /// Takes the lock if nobody, or just `seen`, holds it. The last resort against an owner that does not let go.
    async fn replace(&self, key: &SessionKey, seen: &LockOwner, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError>;

    /// As [`replace`](Self::replace), for a socket that lives on whatever comes of it. After an error it may be carried out yet,
    /// and the lock is *not* given back: that would take it from a socket which has it by a renewal meanwhile.
    async fn take_back(
        &self,
        key: &SessionKey,
        seen: &LockOwner,
        owner: &LockOwner,
        ttl: Duration,
    ) -> Result<Acquire, StoreError>;

    /// Lets the locks go that are still held by the given owners; the others are left alone. Returns how many were let go.
    async fn release(&self, locks: &[(SessionKey, LockOwner)]) -> Result<usize, StoreError>;

    /// Renews a batch in one pipeline; outcomes in the order given. A missing lock is taken again.
    async fn renew(&self, batch: &[LockRenewal]) -> Result<Vec<Renewal>, StoreError>;

    /// Remembers the chat that a session selected, for its next connect.
    async fn save_chat(&self, key: &SessionKey, chat: &ChatId, ttl: Duration) -> Result<(), StoreError>;
}
