//! A store at the other end of a link that takes its time, which can be changed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use daisi_ws_service::ports::{
    Announce, AnnounceError, Announcement, Incarnation, Lookup, RouteChange, Routes, Standing, StoreError,
};
use tokio::time::sleep;

use super::fleet::Wrap;

/// How long the link takes each way.
#[derive(Clone, Default)]
pub(crate) struct Way {
    millis: Arc<AtomicU64>,
}

impl Way {
    pub(crate) fn set(&self, way: Duration) {
        self.millis.store(u64::try_from(way.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Puts the link between a pod and its store.
    pub(crate) fn wrap(&self) -> Wrap {
        let way = self.clone();
        Wrap { locks: None, routes: Some(Box::new(move |inner| Arc::new(Far { inner, way: way.clone() }) as _)) }
    }

    async fn pass(&self) {
        let way = Duration::from_millis(self.millis.load(Ordering::Relaxed));
        if !way.is_zero() {
            sleep(way).await;
        }
    }
}

/// Puts a store so far away, each way.
pub(crate) fn far(way: Duration) -> Wrap {
    let link = Way::default();
    link.set(way);
    link.wrap()
}

struct Far {
    inner: Arc<dyn Routes>,
    way: Way,
}

impl Far {
    async fn there_and_back<T>(&self, call: impl Future<Output = T>) -> T {
        self.way.pass().await;
        let answer = call.await;
        self.way.pass().await;
        answer
    }
}

#[async_trait]
impl Routes for Far {
    async fn apply(&self, pod: &PodId, changes: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
        self.there_and_back(self.inner.apply(pod, changes)).await
    }
    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError> {
        self.there_and_back(self.inner.lookup(me, routes)).await
    }
    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], prune: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        self.there_and_back(self.inner.resolve(pods, prune)).await
    }
    async fn announce(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError> {
        self.there_and_back(self.inner.announce(call)).await
    }
    async fn retire(&self, pods: &[PodId]) -> Result<Vec<bool>, StoreError> {
        self.there_and_back(self.inner.retire(pods)).await
    }
    async fn leave(&self, me: &PodRecord) -> Result<(), StoreError> {
        self.there_and_back(self.inner.leave(me)).await
    }
    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError> {
        self.there_and_back(self.inner.pass_over(pod)).await
    }
}
