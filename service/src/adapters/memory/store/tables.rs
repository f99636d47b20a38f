//! The data, with times to live. What has run out is not there; it is thrown away now and then, or it would pile up.

use std::{collections::BTreeSet, hash::Hash, time::Duration};

use bytes::Bytes;
use daisi_ws_domain::{
    ids::{ChatId, PodId},
    maps::Map,
    peer::PodRecord,
    route::RouteKey,
    session::{LockOwner, SessionKey},
};
use tokio::time::Instant;

use crate::ports::Epoch;

/// A table is swept each time it has doubled since, but not below so many entries: that keeps it within twice what is alive.
const SWEEP_FROM: usize = 1024;

#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    pub(super) locks: Expiring<SessionKey, LockOwner>,
    pub(super) chats: Expiring<SessionKey, ChatId>,
    pub(super) routes: Expiring<RouteKey, BTreeSet<PodId>>,
    pub(super) records: Expiring<PodId, PodRecord>,
    pub(super) members: BTreeSet<PodId>,
    /// Pods that have left by themselves, and when the process began that did.
    pub(super) left: Expiring<PodId, Duration>,
    /// How often each pod was retired. Grows by one entry a pod of this process.
    pub(super) retirements: Map<PodId, u64>,
    pub(super) epoch: Option<Epoch>,
    pub(super) tokens: Expiring<String, Bytes>,
}

/// A map whose entries run out.
#[derive(Debug, Clone)]
pub(super) struct Expiring<K, V> {
    entries: Map<K, (V, Instant)>,
    sweep_at: usize,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self { entries: Map::default(), sweep_at: SWEEP_FROM }
    }
}

impl<K: Eq + Hash + Clone, V> Expiring<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let (value, until) = self.entries.get(key)?;
        (*until > Instant::now()).then_some(value)
    }

    pub(super) fn put(&mut self, key: &K, value: V, ttl: Duration) {
        self.sweep();
        self.entries.insert(key.clone(), (value, Instant::now() + ttl));
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// How long the entry lives on, if it is there.
    pub(super) fn expires_in(&self, key: &K) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |(_, until)| until.saturating_duration_since(Instant::now()))
    }

    /// The value to change in place, keeping its time to live.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (value, until) = self.entries.get_mut(key)?;
        (*until > Instant::now()).then_some(value)
    }

    /// What has not run out.
    pub(super) fn alive(&self) -> impl Iterator<Item = (&K, &V)> {
        let now = Instant::now();
        self.entries.iter().filter(move |(_, (_, until))| *until > now).map(|(key, (value, _))| (key, value))
    }

    fn sweep(&mut self) {
        if self.entries.len() >= self.sweep_at {
            let now = Instant::now();
            self.entries.retain(|_, (_, until)| *until > now);
            self.sweep_at = SWEEP_FROM.max(self.entries.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_run_out_does_not_pile_up() {
        let mut table = Expiring::default();
        for entry in 0..10 * SWEEP_FROM {
            table.put(&entry, (), Duration::from_millis(1));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(table.get(&entry), None);
        }
        assert!(table.entries.len() <= SWEEP_FROM);
    }
}
