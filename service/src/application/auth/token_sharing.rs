//! What [`auth`](super::authenticator) leaves of opened tokens for pods of the predecessor, which ask Redis before they open one.
//! No trouble of the store becomes trouble of a connect.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use daisi_ws_domain::session::SessionKind;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};

use crate::{
    metrics::{Metrics, labels::TokenShared},
    ports::{StoreError, TokenCache, log_store_error},
};

/// Longest wait for the store: nobody here needs what is put there.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long it is left alone after it failed: an outage must not cost every connect its patience, and the store has better to do.
const REST: Duration = Duration::from_secs(1);

/// Shares opened tokens, and never reads one: who can write to the store is still nobody.
pub(crate) struct TokenSharing {
    cache: Arc<dyn TokenCache>,
    metrics: Arc<Metrics>,
    resting_until: Mutex<Option<Instant>>,
}

impl TokenSharing {
    pub(crate) fn new(cache: Arc<dyn TokenCache>, metrics: Arc<Metrics>) -> Self {
        Self { cache, metrics, resting_until: Mutex::new(None) }
    }

    /// Puts what a genuine token says under its digest for `ttl`, if the store takes it in time.
    pub(crate) async fn share(&self, kind: SessionKind, token: &str, plaintext: Vec<u8>, ttl: Duration) {
        if ttl.is_zero() || self.backs_off() {
            return;
        }
        let digest = digest(kind, token);
        let shared = timeout(PATIENCE, self.cache.put(kind, &digest, Bytes::from(plaintext), ttl)).await;
        let outcome = match shared.unwrap_or(Err(StoreError::TimedOut(PATIENCE))) {
            Ok(()) => TokenShared::Shared,
            Err(error) => {
                log_store_error!(
                    &error,
                    "an opened token could not be left for pods of the predecessor; trying again in a second"
                );
                self.rest();
                TokenShared::Error
            }
        };
        self.metrics.token_cache_total.with_label_values(&[outcome.as_str()]).inc();
    }

    fn backs_off(&self) -> bool {
        let until = *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn rest(&self) {
        *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }
}

/// The digest under which the predecessor's pods look a token up.
fn digest(kind: SessionKind, token: &str) -> String {
    let prefix = match kind {
        SessionKind::User => "",
        SessionKind::Admin => "admin_",
    };
    hex::encode(Sha256::new().chain_update(prefix).chain_update(token).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_contract() {
        // printf %s t | sha256sum; printf %s admin_t | sha256sum
        assert_eq!(digest(SessionKind::User, "t"), "e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8");
        assert_eq!(digest(SessionKind::Admin, "t"), "574c680e83dea42a9a1b9441f1a1099a6286e90b873376f37dc9dfd0e58f703c");
    }
}
