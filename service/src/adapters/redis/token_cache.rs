//! Opened tokens, for pods of the predecessor. User and admin tokens differ in what is digested, so one prefix serves both.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use daisi_ws_domain::session::SessionKind;

use super::{RedisStore, keys, values::milliseconds};
use crate::{
    metrics::labels::RedisCommand,
    ports::{StoreError, TokenCache},
};

#[async_trait]
impl TokenCache for RedisStore {
    async fn put(&self, _: SessionKind, digest: &str, entry: Bytes, ttl: Duration) -> Result<(), StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::token(digest)).arg(&entry[..]).arg("PX").arg(milliseconds(ttl));
        let set = &set;
        self.commands.run(RedisCommand::PutToken, |mut connection| async move { set.exec_async(&mut connection).await }).await
    }
}
