//! Secrets that do not show themselves, and where the configuration has them.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::Config;

/// What stands in for a secret wherever something is shown.
pub(super) const REDACTED: &str = "<redacted>";

/// A text that no log, metric, error or page may show.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Is there nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { REDACTED }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { REDACTED })
    }
}

/// Writes what may be shown, never the text: a serialised configuration is for reading, not for loading.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl Config {
    /// Every secret, by its key.
    #[must_use]
    pub fn secrets(&self) -> [(&'static str, &Secret); 7] {
        [
            ("nats.password", &self.nats.password),
            ("nats.token", &self.nats.token),
            ("redis.password", &self.redis.password),
            ("auth.secret_token", &self.auth.secret_token),
            ("auth.token_aes_key", &self.auth.token_aes_key),
            ("auth.admin_token_aes_key", &self.auth.admin_token_aes_key),
            ("auth.token_generation_admin_key", &self.auth.token_generation_admin_key),
        ]
    }

    /// Makes the keys of section `auth` that are missing, at random: for `dev`, whose fleet nobody else has to talk to.
    pub fn make_missing_secrets(&mut self) {
        let auth = &mut self.auth;
        for secret in
            [&mut auth.secret_token, &mut auth.token_aes_key, &mut auth.admin_token_aes_key, &mut auth.token_generation_admin_key]
        {
            if secret.is_empty() {
                *secret = Secret::new(hex::encode(rand::random::<[u8; 32]>()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_whether_it_is_there() {
        let (set, unset) = (Secret::new("hunter2"), Secret::default());
        assert_eq!((format!("{set:?}"), format!("{unset:?}")), ("<redacted>".to_owned(), "\"\"".to_owned()));
        assert_eq!(serde_json::to_string(&set).unwrap(), "\"<redacted>\"");
        assert_eq!(serde_json::to_string(&unset).unwrap(), "\"\"");
    }
}
