//! Keys under our names that hold something else: who wrote them is no pod of the fleet, and only an operator can take them away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    metrics::Metrics,
    ports::{KeyKind, StoreError},
};

/// A key that is still refused is logged again after this time.
const REMIND_AFTER: Duration = Duration::from_secs(3600);
/// Keys whose log lines are remembered. Past that the rest are only counted, for as long.
const MAX_REMEMBERED: usize = 1024;

/// Counts refused keys, and logs each of them once.
pub(super) struct Refusals {
    logged: Mutex<HashMap<String, Instant>>,
    metrics: Arc<Metrics>,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { logged: Mutex::default(), metrics }
    }

    /// The error for who needs a key that holds something else, by what the server said of it.
    pub(super) fn refuse(&self, kind: KeyKind, key: &str, said: &str) -> StoreError {
        self.note(kind, key);
        StoreError::wrong_type(kind, said)
    }

    /// Notes that a key was met that holds something else.
    pub(super) fn note(&self, kind: KeyKind, key: &str) {
        self.metrics.redis_keys_refused_total.with_label_values(&[kind.as_str()]).inc();
        if self.is_news(key) {
            tracing::warn!(
                redis.key = key,
                kind = kind.as_str(),
                "a key of Redis holds something else than what pods write there; it costs only what it is about, until it is \
                deleted"
            );
        }
    }

    fn is_news(&self, key: &str) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(key).is_some_and(|at| now < *at + REMIND_AFTER) {
            return false;
        }
        if logged.len() >= MAX_REMEMBERED {
            logged.retain(|_, at| now < *at + REMIND_AFTER);
        }
        let room = logged.len() < MAX_REMEMBERED;
        if room {
            logged.insert(key.to_owned(), now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_news_once_and_again_after_an_hour() {
        let refusals = Refusals::new(Arc::new(Metrics::new().unwrap()));
        assert!(refusals.is_news("a") && !refusals.is_news("a") && refusals.is_news("b"));
        tokio::time::advance(REMIND_AFTER).await;
        assert!(refusals.is_news("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn more_keys_than_can_be_remembered_are_no_news() {
        let refusals = Refusals::new(Arc::new(Metrics::new().unwrap()));
        let news = (0..MAX_REMEMBERED * 2).filter(|key| refusals.is_news(&key.to_string())).count();
        assert_eq!(news, MAX_REMEMBERED);
    }
}
