//! Opened tokens, for the fleet. User and admin tokens differ in what is digested, so one prefix serves both.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{RedisStore, keys, locks::milliseconds};
use crate::{
    application::ports::{StoreError, TokenCache},
    domain::session::SessionKind,
};

/// Of a longer entry, which is none of ours, no more is read: it proves nothing. A token and its proof are shorter.
const MAX_ENTRY_BYTES: usize = 16 * 1024;

#[async_trait]
impl TokenCache for RedisStore {
    async fn get(&self, _: SessionKind, digest: &str) -> Result<Option<Bytes>, StoreError> {
        let key = keys::token(digest);
        let mut get = redis::pipe();
        get.cmd("EXISTS").arg(&key).cmd("GETRANGE").arg(&key).arg(0).arg(MAX_ENTRY_BYTES);
        let get = &get;
        let entry = |mut connection| async move {
            match get.query_async::<(bool, Vec<u8>)>(&mut connection).await {
                // One key that holds something else is that token's misfortune, and no reason not to ask for others; it will be overwritten.
                Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
                entry => entry.map(Some),
            }
        };
        let entry = self.commands.run("get_token", entry).await?;
        if entry.is_none() {
            self.refusals.note("token", &key);
        }
        Ok(entry.and_then(|(exists, entry)| exists.then(|| Bytes::from(entry))))
    }

    async fn put(&self, _: SessionKind, digest: &str, entry: Bytes, ttl: Duration) -> Result<(), StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::token(digest)).arg(&entry[..]).arg("PX").arg(milliseconds(ttl));
        let set = &set;
        self.commands.run("put_token", |mut connection| async move { set.exec_async(&mut connection).await }).await
    }
}
