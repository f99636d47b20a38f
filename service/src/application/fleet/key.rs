//! The secret that all pods of a fleet have alike, and what is proved with it.
//!
//! Each use has a key of its own, derived under its own label: what one use signs is never worth anything in another.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::Secret;

/// A proof: HMAC-SHA256.
pub(crate) type Signature = [u8; 32];

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A call of one pod to another.
    Call,
    /// The answer to it.
    Answer,
    /// A pod's record in the session store.
    Record,
    /// A call as the version before proved it: of a time, and of nothing else.
    PreviousCall,
}

/// The fleet's secret. Debug shows nothing of it.
#[derive(Clone)]
pub struct FleetKey {
    call: Signature,
    answer: Signature,
    record: Signature,
    previous: Signature,
}

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey(<redacted>)")
    }
}

impl FleetKey {
    /// Derives the key from the keys of user and admin tokens. Upper and lower case hex give the same key.
    #[must_use]
    pub fn derive(token_aes_key: &Secret, admin_token_aes_key: &Secret) -> Self {
        let digest = |secret: &Secret| Sha256::digest(secret.expose().to_ascii_lowercase());
        let mut block = [0; 64];
        block[..32].copy_from_slice(&digest(token_aes_key));
        block[32..].copy_from_slice(&digest(admin_token_aes_key));
        let previous = mac(&block, [b"daisi-ws fleet proof v1".as_slice()]);
        // Longer than the eight bytes that the version before signs under the same key, so none of them is ever such a signature.
        let derived = |label: &[u8]| mac(&padded(&previous), [label]);
        Self {
            call: derived(b"daisi-ws fleet v2: call"),
            answer: derived(b"daisi-ws fleet v2: answer"),
            record: derived(b"daisi-ws fleet v2: pod record"),
            previous,
        }
    }

    /// Signs the parts, each with its length, so that no byte can pass from one to its neighbour.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, parts: &[&[u8]]) -> Signature {
        let key = match purpose {
            Purpose::Call => &self.call,
            Purpose::Answer => &self.answer,
            Purpose::Record => &self.record,
            Purpose::PreviousCall => return mac(&padded(&self.previous), parts.iter().copied()),
        };
        let lengths: Vec<[u8; 8]> =
            parts.iter().map(|part| u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes()).collect();
        mac(&padded(key), lengths.iter().zip(parts).flat_map(|(length, part)| [length.as_slice(), part]))
    }

    /// Is it the signature of these parts? In constant time.
    #[must_use]
    pub(crate) fn is_signed(&self, purpose: Purpose, parts: &[&[u8]], signature: &Signature) -> bool {
        self.sign(purpose, parts).ct_eq(signature).into()
    }
}

fn padded(key: &Signature) -> [u8; 64] {
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    block
}

fn mac<'a>(key: &[u8; 64], message: impl IntoIterator<Item = &'a [u8]>) -> Signature {
    // One block, which cannot be of a wrong length.
    let mut mac = Hmac::<Sha256>::new(key.into());
    message.into_iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: &str, admin: &str) -> FleetKey {
        FleetKey::derive(&Secret::new(user), &Secret::new(admin))
    }

    #[test]
    fn a_signature_needs_both_keys_in_their_places() {
        let signature = key("aa", "bb").sign(Purpose::Record, &[b"x"]);
        assert!(key("AA", "BB").is_signed(Purpose::Record, &[b"x"], &signature));
        for other in [key("aa", "cc"), key("cc", "bb"), key("bb", "aa"), key("aab", "b")] {
            assert!(!other.is_signed(Purpose::Record, &[b"x"], &signature));
        }
    }

    #[test]
    fn a_signature_is_for_one_use_and_its_parts_are_apart() {
        let (key, parts) = (key("aa", "bb"), [b"ab".as_slice(), b"c"]);
        let signature = key.sign(Purpose::Call, &parts);
        for purpose in [Purpose::Answer, Purpose::Record, Purpose::PreviousCall] {
            assert!(!key.is_signed(purpose, &parts, &signature), "{purpose:?}");
        }
        for other in [[b"a".as_slice(), b"bc"].as_slice(), &[b"abc"], &[b"ab", b"c", b""], &[b"c", b"ab"]] {
            assert!(!key.is_signed(Purpose::Call, other, &signature), "{other:?}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        assert_eq!(format!("{:?}", key("aa", "bb")), "FleetKey(<redacted>)");
    }
}
