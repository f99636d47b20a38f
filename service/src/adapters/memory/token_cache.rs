//! Opened tokens of one pod (`auth.token_cache: memory`), bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    application::ports::{StoreError, TokenCache},
    domain::session::SessionKind,
};

/// Entries of a pod's cache: with some hundred bytes each, a few megabytes.
pub const DEFAULT_ENTRIES: usize = 16_384;

type Entries = HashMap<(SessionKind, String), (Bytes, Instant)>;

/// Keeps entries in two generations: when the young one holds half of what is allowed, it becomes the old one, and the old one goes. So the
/// bound holds, what was put in lately stays, and neither a put nor a get looks at more than two maps.
#[derive(Debug)]
pub struct MemoryTokenCache {
    generations: Mutex<(Entries, Entries)>,
    half: usize,
}

impl MemoryTokenCache {
    /// A cache of at most so many entries, but at least two.
    #[must_use]
    pub fn new(max_entries: usize) -> Self {
        Self { generations: Mutex::default(), half: (max_entries / 2).max(1) }
    }
}

#[async_trait]
impl TokenCache for MemoryTokenCache {
    async fn get(&self, kind: SessionKind, digest: &str) -> Result<Option<Bytes>, StoreError> {
        let key = (kind, digest.to_owned());
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let (young, old) = &*generations;
        let found = young.get(&key).or_else(|| old.get(&key));
        Ok(found.filter(|(_, until)| *until > Instant::now()).map(|(entry, _)| entry.clone()))
    }

    async fn put(&self, kind: SessionKind, digest: &str, entry: Bytes, ttl: Duration) -> Result<(), StoreError> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let (young, old) = &mut *generations;
        if young.len() >= self.half {
            *old = std::mem::take(young);
        }
        young.insert((kind, digest.to_owned()), (entry, Instant::now() + ttl));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn the_cache_is_bounded_and_keeps_the_newest() {
        let cache = MemoryTokenCache::new(10);
        for digest in 0..100 {
            cache.put(SessionKind::User, &digest.to_string(), Bytes::new(), TTL).await.unwrap();
            let (young, old) = &*cache.generations.lock().unwrap();
            assert!(young.len() + old.len() <= 10);
        }
        assert!(cache.get(SessionKind::User, "99").await.unwrap().is_some());
        assert!(cache.get(SessionKind::User, "80").await.unwrap().is_none());
    }
}
