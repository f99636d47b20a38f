//! Session locks: every change is one script that compares before it writes.
//!
//! A value that is no owner (neither a pod's id nor `{pod}/{connection}`) was written by nobody of the fleet, so nobody will
//! renew or release it. It is replaced, by compare-and-set on the very bytes seen. An empty value counts as none, and so does one
//! that is longer than any owner (257 bytes): it never leaves Redis. A key of another kind is refused, to its own session alone:
//! no script fails for it.

use std::{sync::LazyLock, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::{
    ids::ChatId,
    session::{LockOwner, SessionKey},
};
use redis::ScriptInvocation;

use super::{
    RedisStore,
    claims::{TAKEN, Untaken},
    keys,
    lock_scripts::RELEASE,
    script::Lua,
    values::milliseconds,
};
use crate::{
    metrics::labels::RedisCommand,
    ports::{Acquire, KeyKind, LockRenewal, Renewal, SessionLocks, StoreError},
};

/// A claim that meets a value which is no owner is made once more, on that value.
const CLAIMS: usize = 2;

// No script here reads more of a value than what one of ours can have, and one byte: somebody may have put a hundred megabytes
// there. A key that is not there reads as an empty value, and an empty value is worth no more.

/// Somebody writes them faster than they are replaced.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it keeps getting values that are no owner")]
struct KeepsChanging;

/// Keys: locks, then selected chats. Arguments: how many locks; for each, its owner and TTL in ms; for each chat, the number of
/// its lock, the chat, and its TTL in ms. Answers with what did not go as it nearly always does: the number of a lock, a verdict,
/// and the value that the key has, or why it was refused.
///
/// One script for a whole batch: ten thousand sessions are renewed every few seconds, and a command and an answer each would be
/// most of what that costs. A chat is kept only for a session whose lock is ours.
static RENEW: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local locks, odd, lost = tonumber(ARGV[1]), {}, {}\n\
         for i = 1, locks do\n\
           local owner, ttl = ARGV[2 * i], ARGV[2 * i + 1]\n\
           local held = redis.pcall('GETRANGE', KEYS[i], 0, 257)\n\
           if held == owner then\n\
             redis.call('PEXPIRE', KEYS[i], ttl)\n\
           elseif held == '' or #held > 257 then\n\
             redis.call('SET', KEYS[i], owner, 'PX', ttl)\n\
             odd[#odd + 1] = {i, 1, ''}\n\
           else\n\
             lost[i] = true\n\
             local refused = type(held) == 'table'\n\
             if refused and not string.find(held.err, 'WRONGTYPE', 1, true) then return held end\n\
             odd[#odd + 1] = {i, refused and 3 or 2, refused and held.err or held}\n\
           end\n\
         end\n\
         for i = locks + 1, #KEYS do\n\
           local at = 2 * locks + 3 * (i - locks) - 1\n\
           if not lost[tonumber(ARGV[at])] then redis.call('SET', KEYS[i], ARGV[at + 1], 'PX', ARGV[at + 2]) end\n\
         end\n\
         return odd",
    )
});

#[async_trait]
impl SessionLocks for RedisStore {
    async fn acquire(&self, key: &SessionKey, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.claim(key, Vec::new(), owner, ttl, Untaken::GivenBack).await
    }

    async fn replace(&self, key: &SessionKey, seen: &LockOwner, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.claim(key, seen.to_string().into_bytes(), owner, ttl, Untaken::GivenBack).await
    }

    async fn take_back(
        &self,
        key: &SessionKey,
        seen: &LockOwner,
        owner: &LockOwner,
        ttl: Duration,
    ) -> Result<Acquire, StoreError> {
        self.claim(key, seen.to_string().into_bytes(), owner, ttl, Untaken::Kept).await
    }

    async fn release(&self, locks: &[(SessionKey, LockOwner)]) -> Result<usize, StoreError> {
        if locks.is_empty() {
            return Ok(0);
        }
        let call = |(key, owner): &(SessionKey, LockOwner)| RELEASE.call(&[keys::lock(key)], &[&owner.to_string()]);
        let pipeline = &RELEASE.pipeline(locks.iter().map(call));
        let gone: Vec<usize> = self
            .commands
            .run(RedisCommand::ReleaseLocks, |mut connection| async move { pipeline.query_async(&mut connection).await })
            .await?;
        Ok(gone.into_iter().sum())
    }

    async fn renew(&self, batch: &[LockRenewal]) -> Result<Vec<Renewal>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let call = &renewal(batch);
        let odd: Vec<(usize, u8, Vec<u8>)> = self
            .commands
            .run(RedisCommand::RenewLocks, |mut connection| async move { call.invoke_async(&mut connection).await })
            .await?;
        let mut renewals = vec![Renewal::Renewed; batch.len()];
        for (number, verdict, value) in odd {
            let place = number.wrapping_sub(1);
            let (Some(lock), Some(renewal)) = (batch.get(place), renewals.get_mut(place)) else {
                return Err(StoreError::malformed("a lock that was not asked about"));
            };
            *renewal = self.judge(lock, verdict, &value).await?;
        }
        Ok(renewals)
    }

    async fn save_chat(&self, key: &SessionKey, chat: &ChatId, ttl: Duration) -> Result<(), StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::selected_chat(key)).arg(chat.as_str()).arg("PX").arg(milliseconds(ttl));
        let set = &set;
        self.commands.run(RedisCommand::SaveChat, |mut connection| async move { set.exec_async(&mut connection).await }).await
    }
}

impl RedisStore {
    /// Takes the lock if nobody holds it, or we do (an earlier try whose answer was lost), or the value in it is `seen`.
    async fn claim(
        &self,
        key: &SessionKey,
        mut seen: Vec<u8>,
        owner: &LockOwner,
        ttl: Duration,
        untaken: Untaken,
    ) -> Result<Acquire, StoreError> {
        for _ in 0..CLAIMS {
            let keys = [keys::lock(key), keys::selected_chat(key)];
            let (taken, value) = self.claims.claim(keys, owner.to_string(), milliseconds(ttl), seen, untaken).await?;
            let value = value.unwrap_or_default();
            match taken {
                0 => {}
                TAKEN => return Ok(Acquire::Acquired { saved_chat: parse(&value, |text| ChatId::parse(text).ok()) }),
                _ => {
                    let why = String::from_utf8_lossy(&value);
                    return Err(self.refusals.refuse(KeyKind::Lock, &keys::lock(key), &why));
                }
            }
            match parse(&value, |text| LockOwner::parse(text).ok()) {
                Some(holder) => return Ok(Acquire::Held(holder)),
                None => tracing::warn!(session.kind = key.kind().as_str(), "replacing a session lock whose value is no owner"),
            }
            seen = value;
        }
        Err(StoreError::wrong_type(KeyKind::Lock, KeepsChanging))
    }

    /// What a renewal came to that was not simply renewed.
    async fn judge(&self, lock: &LockRenewal, verdict: u8, value: &[u8]) -> Result<Renewal, StoreError> {
        match verdict {
            1 => return Ok(Renewal::Restored),
            2 => {}
            _ => {
                self.refusals.note(KeyKind::Lock, &keys::lock(&lock.key));
                // Nobody of the fleet can hold it, so nobody else can have the session.
                return Ok(Renewal::Renewed);
            }
        }
        if let Some(holder) = parse(value, |text| LockOwner::parse(text).ok()) {
            return Ok(Renewal::Lost(holder));
        }
        Ok(match self.claim(&lock.key, value.to_vec(), &lock.owner, lock.ttl, Untaken::Kept).await? {
            Acquire::Acquired { .. } => Renewal::Restored,
            Acquire::Held(holder) => Renewal::Lost(holder),
        })
    }
}

fn renewal(batch: &[LockRenewal]) -> ScriptInvocation<'static> {
    let mut call = RENEW.single().prepare_invoke();
    call.arg(batch.len());
    for lock in batch {
        call.key(keys::lock(&lock.key)).arg(lock.owner.to_string()).arg(milliseconds(lock.ttl));
    }
    for (place, lock) in batch.iter().enumerate() {
        if let Some(chat) = &lock.chat {
            call.key(keys::selected_chat(&lock.key)).arg(place + 1).arg(chat.as_str()).arg(milliseconds(lock.chat_ttl));
        }
    }
    call
}

fn parse<T>(value: &[u8], parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    parse(std::str::from_utf8(value).ok()?)
}
