//! Where opened tokens are left for pods of the predecessor.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use daisi_ws_domain::session::SessionKind;

use super::errors::StoreError;

/// Where opened tokens are left, by digest, for pods of the predecessor, which look there before they open one. It is never read:
/// a token proves itself.
#[async_trait]
pub trait TokenCache: Send + Sync {
    /// Keeps what a token says for `ttl`, in place of what was there. `digest` is the lower-case hex under which they look.
    async fn put(&self, kind: SessionKind, digest: &str, entry: Bytes, ttl: Duration) -> Result<(), StoreError>;
}
