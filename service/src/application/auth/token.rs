//! Sealing and opening of tokens. What the plaintext means is the claims' business.
//!
//! AES-256-GCM without additional data; the text is URL-safe base64 of `nonce (12) ‖ ciphertext ‖ tag (16)`.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead as _, Generate as _, KeyInit as _, consts::U12},
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use crate::config::Secret;

/// The longest text that is opened: three times what the longest ids need, and little enough to decode for anybody who asks.
pub(crate) const MAX_TOKEN_BYTES: usize = 4096;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Writes padding, reads with and without it, and refuses every text that is not the one form of its bytes.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_encode_padding(true).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A configured key is no AES-256 key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token key must be 64 hexadecimal characters (32 bytes)")]
pub struct KeyError;

/// Why a text could not be opened. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too long, no base64, or too short for nonce and tag.
    #[error("the token is malformed")]
    Malformed,
    /// Sealed under another key, or changed since.
    #[error("the token was not sealed with this service's key")]
    WrongKey,
}

/// Why a plaintext could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// [`TokenKey::open`] would refuse the text.
    #[error("the token would be longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// The system gave no randomness.
    #[error("no random nonce could be drawn")]
    NoRandomness,
}

/// An AES-256 key that seals and opens tokens. Its memory is wiped when it goes.
#[derive(Clone)]
pub struct TokenKey {
    cipher: Aes256Gcm,
}

impl TokenKey {
    /// Reads 64 hexadecimal characters.
    ///
    /// # Errors
    /// When the secret is anything else; the error does not show it.
    pub fn parse(secret: &Secret) -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0_u8; 32]);
        hex::decode_to_slice(secret.expose(), key.as_mut()).map_err(|_| KeyError)?;
        Ok(Self { cipher: Aes256Gcm::new_from_slice(key.as_ref()).map_err(|_| KeyError)? })
    }

    /// Seals a plaintext under a fresh random nonce, as padded text.
    ///
    /// # Errors
    /// When the text would be too long to be opened, or the system has no randomness.
    pub fn seal(&self, plaintext: &[u8]) -> Result<String, SealError> {
        let nonce = Nonce::<U12>::try_generate().map_err(|_| SealError::NoRandomness)?;
        let sealed = self.cipher.encrypt(&nonce, plaintext).map_err(|_| SealError::TooLong)?;
        let text = BASE64.encode([nonce.as_slice(), &sealed].concat());
        if text.len() > MAX_TOKEN_BYTES { Err(SealError::TooLong) } else { Ok(text) }
    }

    /// Opens what [`TokenKey::seal`] made, padded or not.
    ///
    /// # Errors
    /// When the text is malformed, or not sealed with this key.
    pub fn open(&self, text: &str) -> Result<Vec<u8>, OpenError> {
        // Half a padding is neither with nor without, and would be a third form.
        let is_half_padded = text.ends_with('=') && !text.len().is_multiple_of(4);
        if text.len() > MAX_TOKEN_BYTES || is_half_padded {
            return Err(OpenError::Malformed);
        }
        let bytes = BASE64.decode(text).map_err(|_| OpenError::Malformed)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Malformed)?;
        if sealed.len() < TAG_BYTES {
            return Err(OpenError::Malformed);
        }
        self.cipher.decrypt(&Nonce::from(*nonce), sealed).map_err(|_| OpenError::WrongKey)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(<redacted>)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOREIGN: &str = "AAECAwQFBgcICQoLPCC-fqmJrTm3Y-Dkw4UcT_5C6f14mxVFHqMaXJmsDdaT";

    fn key(byte: u8) -> TokenKey {
        TokenKey::parse(&Secret::new(hex::encode([byte; 32]))).unwrap()
    }

    #[test]
    fn a_sealed_text_opens_with_and_without_padding() {
        let text = key(1).seal(b"hello!").unwrap();
        assert!(text.ends_with('=') && !text.contains(['+', '/']), "{text}");
        assert_eq!(key(1).open(&text).unwrap(), b"hello!");
        assert_eq!(key(1).open(text.trim_end_matches('=')).unwrap(), b"hello!");
        let half = text.strip_suffix("==").map(|bare| format!("{bare}=")).unwrap();
        assert_eq!(key(1).open(&half), Err(OpenError::Malformed));
    }

    #[test]
    fn a_token_sealed_by_another_implementation_opens() {
        // Sealed elsewhere with nonce 00..0b, so that both sides of our own code can't be wrong together.
        let key = TokenKey::parse(&Secret::new("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")).unwrap();
        assert_eq!(key.open(FOREIGN).unwrap(), br#"{"hello":"world"}"#);
    }

    #[test]
    fn another_key_does_not_open_it() {
        let text = key(1).seal(b"hello").unwrap();
        assert_eq!(key(2).open(&text), Err(OpenError::WrongKey));
    }

    #[test]
    fn texts_that_are_no_token_are_malformed() {
        let long = "A".repeat(MAX_TOKEN_BYTES + 4);
        for text in ["", "x", "====", "AAAA", "+/+/", "\u{e9}", long.as_str(), &BASE64.encode([0; 27])] {
            assert_eq!(key(1).open(text), Err(OpenError::Malformed), "{} bytes", text.len());
        }
        assert_eq!(key(1).open(&BASE64.encode([0; 28])), Err(OpenError::WrongKey));
    }

    #[test]
    fn what_could_not_be_opened_is_not_sealed() {
        assert_eq!(key(1).seal(&[0; MAX_TOKEN_BYTES]), Err(SealError::TooLong));
    }

    #[test]
    fn two_seals_of_the_same_plaintext_differ() {
        assert_ne!(key(1).seal(b"x").unwrap(), key(1).seal(b"x").unwrap());
    }

    #[test]
    fn bad_keys_are_refused_and_good_ones_never_shown() {
        for text in ["", "00", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64)] {
            assert_eq!(TokenKey::parse(&Secret::new(text)).unwrap_err(), KeyError);
        }
        assert_eq!(format!("{:?}", key(0xab)), "TokenKey(<redacted>)");
    }

    proptest! {
        #[test]
        fn random_text_never_opens_and_never_panics(text in "\\PC{0,200}") {
            prop_assert!(key(1).open(&text).is_err());
        }

        #[test]
        fn random_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(key(1).open(&BASE64.encode(bytes)).is_err());
        }

        #[test]
        fn a_flipped_bit_never_opens(
            plaintext in proptest::collection::vec(any::<u8>(), 0..64),
            at in any::<proptest::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let mut bytes = BASE64.decode(key(1).seal(&plaintext).unwrap()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert_eq!(key(1).open(&BASE64.encode(bytes)), Err(OpenError::WrongKey));
        }

        #[test]
        fn a_changed_character_never_opens(at in any::<proptest::sample::Index>(), to in "[ -~]") {
            let text = key(1).seal(b"hello").unwrap();
            let at = at.index(text.trim_end_matches('=').len());
            let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
            prop_assume!(changed != text);
            prop_assert!(key(1).open(&changed).is_err());
        }

        #[test]
        fn any_plaintext_survives_the_round_trip(plaintext in proptest::collection::vec(any::<u8>(), 0..1024)) {
            prop_assert_eq!(key(1).open(&key(1).seal(&plaintext).unwrap()).unwrap(), plaintext);
        }
    }
}
