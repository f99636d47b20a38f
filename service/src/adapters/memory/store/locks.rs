//! Session locks.

use std::time::Duration;

use async_trait::async_trait;
use daisi_ws_domain::{
    ids::ChatId,
    session::{LockOwner, SessionKey},
};

use super::{State, StoreHandle};
use crate::ports::{Acquire, KeyKind, LockRenewal, Renewal, SessionLocks, StoreError};

#[async_trait]
impl SessionLocks for StoreHandle {
    async fn acquire(&self, key: &SessionKey, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.attempt(|state| claim(state, key, None, owner, ttl)).await
    }

    async fn replace(&self, key: &SessionKey, seen: &LockOwner, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.attempt(|state| claim(state, key, Some(seen), owner, ttl)).await
    }

    async fn take_back(
        &self,
        key: &SessionKey,
        seen: &LockOwner,
        owner: &LockOwner,
        ttl: Duration,
    ) -> Result<Acquire, StoreError> {
        self.replace(key, seen, owner, ttl).await
    }

    async fn release(&self, locks: &[(SessionKey, LockOwner)]) -> Result<usize, StoreError> {
        self.run(|state| {
            let table = &mut state.tables.locks;
            let mut gone = 0;
            for (key, owner) in locks {
                if table.get(key) == Some(owner) {
                    table.remove(key);
                    gone += 1;
                }
            }
            gone
        })
        .await
    }

    async fn renew(&self, batch: &[LockRenewal]) -> Result<Vec<Renewal>, StoreError> {
        self.run(|state| batch.iter().map(|lock| renew(state, lock)).collect()).await
    }

    async fn save_chat(&self, key: &SessionKey, chat: &ChatId, ttl: Duration) -> Result<(), StoreError> {
        self.run(|state| state.tables.chats.put(key, chat.clone(), ttl)).await
    }
}

/// As a server says it that holds a list where a text is meant.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("WRONGTYPE the key holds the wrong kind of value")]
struct OfAnotherKind;

/// Takes the lock if nobody holds it, or `owner` (an earlier try whose answer was lost) or `seen` does.
fn claim(
    State { tables, faults, .. }: &mut State,
    key: &SessionKey,
    seen: Option<&LockOwner>,
    owner: &LockOwner,
    ttl: Duration,
) -> Result<Acquire, StoreError> {
    if faults.refused_locks.contains(key) {
        return Err(StoreError::wrong_type(KeyKind::Lock, OfAnotherKind));
    }
    Ok(match tables.locks.get(key) {
        Some(holder) if holder != owner && Some(holder) != seen => Acquire::Held(holder.clone()),
        _ => {
            tables.locks.put(key, owner.clone(), ttl);
            Acquire::Acquired { saved_chat: tables.chats.get(key).cloned() }
        }
    })
}

fn renew(State { tables, faults, .. }: &mut State, lock: &LockRenewal) -> Renewal {
    if faults.refused_locks.contains(&lock.key) {
        // Nobody can hold it, so nobody else can have the session.
        return Renewal::Renewed;
    }
    let renewal = match tables.locks.get(&lock.key) {
        Some(holder) if *holder != lock.owner => return Renewal::Lost(holder.clone()),
        Some(_) => Renewal::Renewed,
        None => Renewal::Restored,
    };
    tables.locks.put(&lock.key, lock.owner.clone(), lock.ttl);
    if let Some(chat) = &lock.chat {
        tables.chats.put(&lock.key, chat.clone(), lock.chat_ttl);
    }
    renewal
}
