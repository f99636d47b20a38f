//! Session locks: every change is one script that compares before it writes.
//!
//! A value that is no owner (neither a pod's id nor `{pod}/{connection}`) was written by nobody of the fleet, so nobody will renew or release
//! it. It is replaced, by compare-and-set on the very bytes seen. An empty value counts as none.

use std::{sync::LazyLock, time::Duration};

use async_trait::async_trait;

use super::{RedisStore, claims::Verdict, keys, script::Lua};
use crate::{
    application::ports::{Acquire, LockRenewal, Renewal, SessionLocks, StoreError},
    domain::{
        ids::ChatId,
        session::{LockOwner, SessionKey},
    },
};

/// A claim that meets a value which is no owner is made once more, on that value.
const CLAIMS: usize = 2;

/// Keys: lock, selected chat. Arguments: owner, TTL in ms, the value that may be overwritten.
pub(super) static CLAIM: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local held = redis.call('GET', KEYS[1])\n\
         if held and held ~= '' and held ~= ARGV[1] and held ~= ARGV[3] then return {0, held} end\n\
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n\
         return {1, redis.call('GET', KEYS[2])}",
    )
});

/// Keys: lock, selected chat. Arguments: owner, TTL in ms, chat or nothing, its TTL in ms.
static RENEW: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local held = redis.call('GET', KEYS[1])\n\
         if held == '' then held = false end\n\
         if held and held ~= ARGV[1] then return {2, held} end\n\
         if held then redis.call('PEXPIRE', KEYS[1], ARGV[2]) else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end\n\
         if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4]) end\n\
         if held then return {0, false} end\n\
         return {1, false}",
    )
});

/// Keys: lock. Arguments: owner.
static RELEASE: LazyLock<Lua> =
    LazyLock::new(|| Lua::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end\nreturn 0"));

#[async_trait]
impl SessionLocks for RedisStore {
    async fn acquire(&self, key: &SessionKey, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.claim(key, Vec::new(), owner, ttl).await
    }

    async fn replace(&self, key: &SessionKey, seen: &LockOwner, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.claim(key, seen.to_string().into_bytes(), owner, ttl).await
    }

    async fn release(&self, locks: &[(SessionKey, LockOwner)]) -> Result<usize, StoreError> {
        if locks.is_empty() {
            return Ok(0);
        }
        let call = |(key, owner): &(SessionKey, LockOwner)| RELEASE.call(&[keys::lock(key)], &[&owner.to_string()]);
        let gone: Vec<Result<usize, StoreError>> = self.each(&RELEASE, "release_locks", locks.iter().map(call).collect()).await?;
        // What is refused is no lock; what went in a batch of which some was refused is gone and not counted.
        Ok(gone.into_iter().map(Result::unwrap_or_default).sum())
    }

    async fn renew(&self, batch: &[LockRenewal]) -> Result<Vec<Renewal>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let verdicts: Vec<Result<Verdict, StoreError>> =
            self.each(&RENEW, "renew_locks", batch.iter().map(renewal).collect()).await?;
        let mut renewals = Vec::with_capacity(batch.len());
        for (lock, verdict) in batch.iter().zip(verdicts) {
            renewals.push(match verdict {
                Ok(verdict) => self.judge(lock, verdict).await?,
                Err(error) => {
                    tracing::warn!(session.kind = lock.key.kind().as_str(), %error, "a session lock can't be renewed: its key holds something else");
                    // Nobody of the fleet can hold it, so nobody else can have the session.
                    Renewal::Renewed
                }
            });
        }
        Ok(renewals)
    }

    async fn save_chat(&self, key: &SessionKey, chat: &ChatId, ttl: Duration) -> Result<(), StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::selected_chat(key)).arg(chat.as_str()).arg("PX").arg(milliseconds(ttl));
        let set = &set;
        self.commands.run("save_chat", |mut connection| async move { set.exec_async(&mut connection).await }).await
    }
}

impl RedisStore {
    /// Calls of one script in one round trip. If any is refused (a key that holds something else), each is tried by itself, so that it costs the
    /// others nothing but time.
    async fn each<T>(
        &self,
        script: &Lua,
        name: &'static str,
        calls: Vec<redis::Cmd>,
    ) -> Result<Vec<Result<T, StoreError>>, StoreError>
    where
        T: redis::FromRedisValue + Send,
        Vec<T>: redis::FromRedisValue,
    {
        let run = async |calls: &[redis::Cmd]| {
            let pipeline = &script.pipeline(calls.iter().cloned());
            let answers: Result<Vec<T>, _> =
                self.commands.run(name, |mut connection| async move { pipeline.query_async(&mut connection).await }).await;
            answers
        };
        match run(&calls).await {
            Ok(answers) => Ok(answers.into_iter().map(Ok).collect()),
            Err(StoreError::Refused(_)) if calls.len() > 1 => {
                let mut answers = Vec::with_capacity(calls.len());
                for call in &calls {
                    match run(std::slice::from_ref(call)).await {
                        Ok(answer) => answers.extend(answer.into_iter().map(Ok)),
                        Err(StoreError::Refused(why)) => answers.push(Err(StoreError::Refused(why))),
                        Err(away) => return Err(away),
                    }
                }
                Ok(answers)
            }
            Err(StoreError::Refused(why)) => Ok(vec![Err(StoreError::Refused(why))]),
            Err(away) => Err(away),
        }
    }

    /// Takes the lock if nobody holds it, or we do (an earlier try whose answer was lost), or the value in it is `seen`.
    async fn claim(&self, key: &SessionKey, mut seen: Vec<u8>, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        for _ in 0..CLAIMS {
            let keys = [keys::lock(key), keys::selected_chat(key)];
            let (taken, value) = self.claims.claim(keys, owner.to_string(), milliseconds(ttl), seen).await?;
            let value = value.unwrap_or_default();
            if taken == 1 {
                return Ok(Acquire::Acquired { saved_chat: parse(&value, |text| ChatId::parse(text).ok()) });
            }
            match parse(&value, |text| LockOwner::parse(text).ok()) {
                Some(holder) => return Ok(Acquire::Held(holder)),
                None => tracing::warn!(session.kind = key.kind().as_str(), "replacing a session lock whose value is no owner"),
            }
            seen = value;
        }
        Err(StoreError::Refused("a session lock keeps getting values that are no owner".into()))
    }

    async fn judge(&self, lock: &LockRenewal, (verdict, value): Verdict) -> Result<Renewal, StoreError> {
        match verdict {
            0 => return Ok(Renewal::Renewed),
            1 => return Ok(Renewal::Restored),
            _ => {}
        }
        let value = value.unwrap_or_default();
        if let Some(holder) = parse(&value, |text| LockOwner::parse(text).ok()) {
            return Ok(Renewal::Lost(holder));
        }
        Ok(match self.claim(&lock.key, value, &lock.owner, lock.ttl).await? {
            Acquire::Acquired { .. } => Renewal::Restored,
            Acquire::Held(holder) => Renewal::Lost(holder),
        })
    }
}

fn renewal(lock: &LockRenewal) -> redis::Cmd {
    let keys = [keys::lock(&lock.key), keys::selected_chat(&lock.key)];
    let chat = lock.chat.as_ref().map_or("", ChatId::as_str);
    RENEW.call(&keys, &[&lock.owner.to_string(), &milliseconds(lock.ttl), &chat, &milliseconds(lock.chat_ttl)])
}

fn parse<T>(value: &[u8], parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    parse(std::str::from_utf8(value).ok()?)
}

/// A time to live as Redis takes it; it refuses 0.
pub(super) fn milliseconds(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 1).max(1)
}
