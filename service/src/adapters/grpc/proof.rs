//! How a pod proves to another that it belongs to the same fleet.
//!
//! A proof is `v1.<unix seconds>.<hex HMAC-SHA256>` under a key that is derived from the fleet's token keys. It is bound to the time, so that one
//! that was overheard is soon worth nothing. It is not bound to a call: whoever can read and forge traffic between pods is out of its scope.

use std::{fmt, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::Secret;

/// The metadata key of a proof.
pub const PROOF_HEADER: &str = "x-dws-fleet-proof";

/// A proof is accepted this long before and after its time: more than the clocks of two pods ever differ, and far more than a call takes.
const TOLERANCE: Duration = Duration::from_secs(300);

/// Keeps this key apart from every other use of the token keys.
const LABEL: &[u8] = b"daisi-ws fleet proof v1";

/// The secret that all pods of a fleet derive alike. Debug shows nothing of it.
#[derive(Clone)]
pub struct FleetKey([u8; 32]);

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey(<redacted>)")
    }
}

/// Why a proof was not accepted. The texts may be told to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProofError {
    /// None was given.
    #[error("the call has no proof that its pod belongs to the fleet")]
    Missing,
    /// Not of the form we write, or made with another key.
    #[error("the proof is not of this fleet: do all pods have the same token keys?")]
    Wrong,
    /// Of this fleet, but from another time.
    #[error("the proof is from another time: do the clocks of the pods differ?")]
    Expired,
}

impl FleetKey {
    /// Derives the key from the keys of user and admin tokens. Upper and lower case hex give the same key.
    #[must_use]
    pub fn derive(token_aes_key: &Secret, admin_token_aes_key: &Secret) -> Self {
        let digest = |secret: &Secret| Sha256::digest(secret.expose().to_ascii_lowercase());
        // Two digests are just one HMAC block, which cannot be of a wrong length.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&digest(token_aes_key));
        block[32..].copy_from_slice(&digest(admin_token_aes_key));
        Self(mac(&block, LABEL))
    }

    /// Makes a proof for the time `now`, since the Unix epoch: the value of [`PROOF_HEADER`].
    #[must_use]
    pub fn prove(&self, now: Duration) -> String {
        let seconds = now.as_secs();
        format!("v1.{seconds}.{}", hex::encode(self.sign(seconds)))
    }

    /// Checks a proof at the time `now`, in constant time as far as secrets go.
    pub(super) fn verify(&self, proof: Option<&[u8]>, now: Duration) -> Result<(), ProofError> {
        let proof = std::str::from_utf8(proof.ok_or(ProofError::Missing)?).map_err(|_| ProofError::Wrong)?;
        let (seconds, signature) = proof.strip_prefix("v1.").and_then(|rest| rest.split_once('.')).ok_or(ProofError::Wrong)?;
        let seconds: u64 = seconds.parse().map_err(|_| ProofError::Wrong)?;
        let mut given = [0; 32];
        hex::decode_to_slice(signature, &mut given).map_err(|_| ProofError::Wrong)?;
        if !bool::from(self.sign(seconds).ct_eq(&given)) {
            return Err(ProofError::Wrong);
        }
        if seconds.abs_diff(now.as_secs()) > TOLERANCE.as_secs() {
            return Err(ProofError::Expired);
        }
        Ok(())
    }

    fn sign(&self, seconds: u64) -> [u8; 32] {
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.0);
        mac(&block, &seconds.to_be_bytes())
    }
}

fn mac(key: &[u8; 64], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new(key.into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn key(user: &str, admin: &str) -> FleetKey {
        FleetKey::derive(&Secret::new(user), &Secret::new(admin))
    }

    #[test]
    fn a_proof_of_the_same_fleet_is_accepted_for_a_while() {
        let proof = key("aa", "bb").prove(NOW);
        let verify = |at| key("AA", "BB").verify(Some(proof.as_bytes()), at);
        assert_eq!(verify(NOW), Ok(()));
        assert_eq!(verify(NOW + TOLERANCE), Ok(()));
        assert_eq!(verify(NOW - TOLERANCE), Ok(()));
        assert_eq!(verify(NOW + TOLERANCE + Duration::from_secs(1)), Err(ProofError::Expired));
        assert_eq!(verify(NOW - TOLERANCE - Duration::from_secs(1)), Err(ProofError::Expired));
    }

    #[test]
    fn a_proof_needs_both_keys_in_their_places() {
        let proof = key("aa", "bb").prove(NOW);
        for other in [key("aa", "cc"), key("cc", "bb"), key("bb", "aa"), key("aab", "b")] {
            assert_eq!(other.verify(Some(proof.as_bytes()), NOW), Err(ProofError::Wrong));
        }
    }

    #[test]
    fn what_is_no_proof_is_refused_and_never_panics() {
        let key = key("aa", "bb");
        assert_eq!(key.verify(None, NOW), Err(ProofError::Missing));
        let good = key.prove(NOW);
        let later = good.replacen("1800000000", "1800000001", 1);
        for bad in ["", "v1", "v1.", "v1.x.00", "v1.1800000000.", "v2.1.00", &good[..good.len() - 2], &later, "\u{e9}"] {
            assert_eq!(key.verify(Some(bad.as_bytes()), NOW), Err(ProofError::Wrong), "{bad}");
        }
        assert_eq!(key.verify(Some(&[0xff, 0xfe]), NOW), Err(ProofError::Wrong));
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        assert_eq!(format!("{:?}", key("aa", "bb")), "FleetKey(<redacted>)");
    }
}
