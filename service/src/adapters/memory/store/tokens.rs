//! Opened tokens, where the predecessor's pods would look for them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use daisi_ws_domain::session::SessionKind;

use super::StoreHandle;
use crate::ports::{StoreError, TokenCache};

#[async_trait]
impl TokenCache for StoreHandle {
    async fn put(&self, _: SessionKind, digest: &str, entry: Bytes, ttl: Duration) -> Result<(), StoreError> {
        self.run(|state| state.tables.tokens.put(&digest.to_owned(), entry, ttl)).await
    }
}

impl StoreHandle {
    /// What was left for a token, as a pod of the predecessor reads it.
    ///
    /// # Errors
    /// When the store is down for this pod.
    pub async fn opened_token(&self, digest: &str) -> Result<Option<Bytes>, StoreError> {
        self.run(|state| state.tables.tokens.get(&digest.to_owned()).cloned()).await
    }
}
