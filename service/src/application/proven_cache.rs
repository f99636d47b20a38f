//! The token cache as [`auth`](super::auth) uses it: entries prove themselves, and no trouble of the cache becomes trouble of a connect.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};

use super::{
    ports::TokenCache,
    token::{MAX_TOKEN_BYTES, PROOF_BYTES, TokenKey},
};
use crate::{domain::session::SessionKind, metrics::Metrics};

/// Longest wait for the cache. Opening a token takes about a microsecond, so the cache is never worth more than a round trip.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long the cache is left alone after it failed: an outage must not cost every connect its patience, and the store has better to do.
const REST: Duration = Duration::from_secs(1);

/// A [`TokenCache`] whose entries are `proof ‖ plaintext`: who can write to the store can still be nobody.
pub(super) struct ProvenCache {
    cache: Arc<dyn TokenCache>,
    metrics: Arc<Metrics>,
    resting_until: Mutex<Option<Instant>>,
}

impl ProvenCache {
    pub(super) fn new(cache: Arc<dyn TokenCache>, metrics: Arc<Metrics>) -> Self {
        Self { cache, metrics, resting_until: Mutex::new(None) }
    }

    /// The plaintext kept for the token, if the key that opens such tokens proves it.
    pub(super) async fn get(&self, key: &TokenKey, kind: SessionKind, digest: &str) -> Option<Bytes> {
        if self.rests() {
            return None;
        }
        let found = match timeout(PATIENCE, self.cache.get(kind, digest)).await {
            Ok(Ok(Some(entry))) => {
                let plaintext = proven(key, kind, digest, &entry);
                (if plaintext.is_some() { "hit" } else { "forged" }, plaintext)
            }
            Ok(Ok(None)) => ("miss", None),
            Ok(Err(_)) | Err(_) => {
                self.rest();
                ("error", None)
            }
        };
        self.metrics.token_cache_total.with_label_values(&[found.0]).inc();
        found.1
    }

    /// Keeps the plaintext for `ttl`, if the cache takes it in time.
    pub(super) async fn put(&self, key: &TokenKey, kind: SessionKind, digest: &str, plaintext: &[u8], ttl: Duration) {
        if ttl.is_zero() || self.rests() {
            return;
        }
        let proof = key.prove(&parts(kind, digest, plaintext));
        let entry = Bytes::from([proof.as_slice(), plaintext].concat());
        if !matches!(timeout(PATIENCE, self.cache.put(kind, digest, entry, ttl)).await, Ok(Ok(()))) {
            self.rest();
            self.metrics.token_cache_total.with_label_values(&["error"]).inc();
        }
    }

    fn rests(&self) -> bool {
        let until = *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn rest(&self) {
        *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }
}

/// The digest under which the contract keeps a token.
pub(super) fn digest(kind: SessionKind, token: &str) -> String {
    let prefix = match kind {
        SessionKind::User => "",
        SessionKind::Admin => "admin_",
    };
    hex::encode(Sha256::new().chain_update(prefix).chain_update(token).finalize())
}

fn proven(key: &TokenKey, kind: SessionKind, digest: &str, entry: &Bytes) -> Option<Bytes> {
    if entry.len() < PROOF_BYTES || entry.len() > PROOF_BYTES + MAX_TOKEN_BYTES {
        return None;
    }
    let plaintext = entry.slice(PROOF_BYTES..);
    key.is_proven(&parts(kind, digest, &plaintext), &entry[..PROOF_BYTES]).then_some(plaintext)
}

fn parts<'a>(kind: SessionKind, digest: &'a str, plaintext: &'a [u8]) -> [&'a [u8]; 3] {
    [kind.as_str().as_bytes(), digest.as_bytes(), plaintext]
}
