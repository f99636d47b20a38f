//! What makes a secret one.

use super::breaches::Breaches;
use crate::config::{Config, Secret, Secrets, keys};

/// The shortest API key, in characters: 16 of a random base64 text are 96 bits, out of reach for guessing over the network.
const MIN_API_KEY: usize = 16;
/// Hex characters of an AES-256 key.
const AES_KEY: usize = 64;
/// What examples and templates have where a secret belongs, in lower case and without anything but letters and digits.
const PLACEHOLDERS: &[&str] = &[
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "replacewith",
    "placeholder",
    "yoursecret",
    "yourtoken",
    "yourapikey",
    "youradmin",
    "yourkey",
    "yourverysecret",
    "setme",
    "fillme",
    "examplesecret",
    "exampletoken",
];

pub(super) fn check(config: &Config, needed: Secrets, breaches: &mut Breaches) {
    let auth = &config.auth;
    let is_needed = |key: &str| match needed {
        Secrets::Required | Secrets::Made => true,
        Secrets::Only(keys) => keys.contains(&key),
    };
    let mut verdict = |key: &'static str, secret: &Secret, judge: fn(&str) -> Option<&'static str>| {
        if !is_needed(key) {
            return;
        }
        if secret.is_empty() {
            breaches.require(false, key, format!("is missing: set it with {}", keys::variable(key)));
        } else if let Some(reason) = judge(secret.expose()) {
            breaches.require(false, key, reason);
        }
    };
    verdict("auth.secret_token", &auth.secret_token, api_key);
    verdict("auth.token_aes_key", &auth.token_aes_key, aes_key);
    verdict("auth.admin_token_aes_key", &auth.admin_token_aes_key, aes_key);
    verdict("auth.token_generation_admin_key", &auth.token_generation_admin_key, api_key);

    let same = |a: &Secret, b: &Secret| !a.is_empty() && a.expose().eq_ignore_ascii_case(b.expose());
    if is_needed("auth.admin_token_aes_key") {
        breaches.require(
            !same(&auth.token_aes_key, &auth.admin_token_aes_key),
            "auth.admin_token_aes_key",
            "must be another key than auth.token_aes_key, or user tokens could be opened as admin tokens",
        );
    }
    if is_needed("auth.token_generation_admin_key") {
        breaches.require(
            auth.secret_token.is_empty() || auth.secret_token != auth.token_generation_admin_key,
            "auth.token_generation_admin_key",
            "must be another key than auth.secret_token, or every browser could mint tokens",
        );
    }
}

fn api_key(text: &str) -> Option<&'static str> {
    if is_placeholder(text) {
        return Some("is a placeholder: make a random one");
    }
    if text.chars().count() < MIN_API_KEY {
        return Some("is shorter than 16 characters");
    }
    // A header can't carry these, so no browser could send the key.
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("has white space or a control character in it");
    }
    is_repetition(text).then_some("is one character repeated: make a random one")
}

fn aes_key(text: &str) -> Option<&'static str> {
    if is_placeholder(text) {
        return Some("is a placeholder: make a random one, 64 hex characters");
    }
    if text.len() != AES_KEY || !text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Some("must be exactly 64 hex characters");
    }
    is_repetition(text).then_some("is one character repeated: make a random one, 64 hex characters")
}

fn is_placeholder(text: &str) -> bool {
    let bare: String = text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    let in_brackets = text.starts_with('<') && text.ends_with('>');
    in_brackets || text.starts_with("your-") || text.starts_with("your_") || PLACEHOLDERS.iter().any(|known| bare.contains(known))
}

fn is_repetition(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next();
    characters.all(|c| Some(c) == first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{testing, validate::validate};

    const GOOD: &str = "v9Kq2nXw7LrT4sPz";

    #[test]
    fn placeholders_and_short_keys_are_no_secrets() {
        for bad in [
            "changeme",
            "change-me-please-now",
            "your-secret-token",
            "your-64-char-hex-key",
            "<put the secret here>",
            "aaaaaaaaaaaaaaaaaaaaaaaa",
            "0123456789abcde",
            "REPLACE_ME_WITH_A_SECRET",
            "v9Kq2nXw7LrT4sPz ",
            "v9Kq2nXw7LrT4sPz\n",
        ] {
            assert!(api_key(bad).is_some(), "{bad:?}");
        }
        for good in [GOOD, "demo-browser-key-0001", "123456789012345678", "yourself-v9Kq2nXw7LrT"] {
            assert_eq!(api_key(good), None, "{good}");
        }
    }

    #[test]
    fn aes_keys_are_64_hex_characters_that_differ() {
        let good = "0123456789abcdefABCDEF0123456789".repeat(2);
        assert_eq!(aes_key(&good), None);
        for bad in
            ["", "00", &good[1..], &format!("{}g", &good[1..]), &"0".repeat(64), &format!("{good}0"), "your-64-char-hex-key"]
        {
            assert!(aes_key(bad).is_some(), "{bad}");
        }
    }

    fn keys_at_fault(change: impl FnOnce(&mut Config)) -> Vec<std::borrow::Cow<'static, str>> {
        let mut config = testing::config();
        change(&mut config);
        validate(&config, Secrets::Required).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn one_secret_never_opens_what_another_guards() {
        let mint = keys_at_fault(|c| c.auth.token_generation_admin_key = c.auth.secret_token.clone());
        assert_eq!(mint, ["auth.token_generation_admin_key"]);
        // The same key in other letters is the same key.
        let aes = keys_at_fault(|c| c.auth.admin_token_aes_key = Secret::new(c.auth.token_aes_key.expose().to_uppercase()));
        assert_eq!(aes, ["auth.admin_token_aes_key"]);
    }

    #[test]
    fn each_missing_secret_is_named_once() {
        let missing = keys_at_fault(|c| {
            c.auth.secret_token = Secret::default();
            c.auth.token_aes_key = Secret::default();
            c.auth.admin_token_aes_key = Secret::default();
            c.auth.token_generation_admin_key = Secret::default();
        });
        assert_eq!(
            missing,
            ["auth.secret_token", "auth.token_aes_key", "auth.admin_token_aes_key", "auth.token_generation_admin_key"]
        );
    }
}
