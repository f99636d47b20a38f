//! Opened tokens, for the fleet. User and admin tokens differ in what is digested, so one prefix serves both.

use std::{sync::LazyLock, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{RedisStore, keys, locks::milliseconds, script::Lua};
use crate::{
    application::ports::{StoreError, TokenCache},
    domain::session::SessionKind,
};

/// Of a longer entry, which is none of ours, no more is read: it proves nothing. A token and its proof are shorter.
const MAX_ENTRY_BYTES: usize = 16 * 1024;

/// Keys: the entry. Arguments: where its last byte may be. Answers with 1 and the entry, 0 where there is none, or 2 where the key holds something else: that is one token's
/// misfortune, no reason not to ask for others, and will be overwritten.
static READ: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local entry = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1])\n\
         if type(entry) == 'table' then\n\
           if not string.find(entry.err, 'WRONGTYPE', 1, true) then return entry end\n\
           return {2, ''}\n\
         end\n\
         return {redis.call('EXISTS', KEYS[1]), entry}",
    )
});

#[async_trait]
impl TokenCache for RedisStore {
    async fn get(&self, _: SessionKind, digest: &str) -> Result<Option<Bytes>, StoreError> {
        let key = keys::token(digest);
        let mut call = READ.single().key(&key);
        call.arg(MAX_ENTRY_BYTES);
        let call = &call;
        let (found, entry): (u8, Vec<u8>) =
            self.commands.run("get_token", |mut connection| async move { call.invoke_async(&mut connection).await }).await?;
        match found {
            0 => Ok(None),
            1 => Ok(Some(Bytes::from(entry))),
            _ => {
                self.refusals.note("token", &key);
                Ok(None)
            }
        }
    }

    async fn put(&self, _: SessionKind, digest: &str, entry: Bytes, ttl: Duration) -> Result<(), StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::token(digest)).arg(&entry[..]).arg("PX").arg(milliseconds(ttl));
        let set = &set;
        self.commands.run("put_token", |mut connection| async move { set.exec_async(&mut connection).await }).await
    }
}
