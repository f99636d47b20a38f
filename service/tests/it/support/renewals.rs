//! Session locks whose renewals do not go as they should; all else goes straight on.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::{
    ids::ChatId,
    session::{LockOwner, SessionKey},
};
use daisi_ws_service::ports::{Acquire, LockRenewal, Renewal, SessionLocks, StoreError};
use futures_util::future::BoxFuture;

use super::fleet::Wrap;

/// The outcome of a batch of renewals.
pub(crate) type Renewed = Result<Vec<Renewal>, StoreError>;

struct Renewals<F> {
    inner: Arc<dyn SessionLocks>,
    around: F,
}

/// Has a pod's renewals carried out by `around`, which is given the locks as they are.
pub(crate) fn renewals<F>(around: F) -> Wrap
where
    F: Fn(Arc<dyn SessionLocks>, Vec<LockRenewal>) -> BoxFuture<'static, Renewed> + Clone + Send + Sync + 'static,
{
    let locks = move |inner| Arc::new(Renewals { inner, around: around.clone() }) as Arc<dyn SessionLocks>;
    Wrap { locks: Some(Box::new(locks)), routes: None }
}

#[async_trait]
impl<F> SessionLocks for Renewals<F>
where
    F: Fn(Arc<dyn SessionLocks>, Vec<LockRenewal>) -> BoxFuture<'static, Renewed> + Send + Sync,
{
    async fn acquire(&self, key: &SessionKey, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.inner.acquire(key, owner, ttl).await
    }
    async fn replace(&self, key: &SessionKey, seen: &LockOwner, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.inner.replace(key, seen, owner, ttl).await
    }
    async fn take_back(
        &self,
        key: &SessionKey,
        seen: &LockOwner,
        owner: &LockOwner,
        ttl: Duration,
    ) -> Result<Acquire, StoreError> {
        self.inner.take_back(key, seen, owner, ttl).await
    }
    async fn release(&self, locks: &[(SessionKey, LockOwner)]) -> Result<usize, StoreError> {
        self.inner.release(locks).await
    }
    async fn renew(&self, batch: &[LockRenewal]) -> Renewed {
        (self.around)(Arc::clone(&self.inner), batch.to_vec()).await
    }
    async fn save_chat(&self, key: &SessionKey, chat: &ChatId, ttl: Duration) -> Result<(), StoreError> {
        self.inner.save_chat(key, chat, ttl).await
    }
}
