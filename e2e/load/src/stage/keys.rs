//! The keys that pods are configured with and that sockets are opened with.

/// The keys of a fleet.
#[derive(Clone)]
pub(crate) struct Keys {
    /// The browsers' API key.
    pub(crate) api: String,
    /// The key of user tokens, in hexadecimal.
    pub(crate) user_token: String,
    admin_token: String,
    mint: String,
}

impl Keys {
    /// Fresh ones, for pods that the run starts.
    pub(crate) fn random() -> Self {
        let random = || hex::encode(rand::random::<[u8; 32]>());
        Self { api: random(), user_token: random(), admin_token: random(), mint: random() }
    }

    /// Those of pods that are there already.
    pub(crate) fn known(api: String, user_token: String) -> Self {
        Self { api, user_token, ..Self::random() }
    }

    /// As a pod's environment.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("DAISI_WS_AUTH_SECRET_TOKEN", &self.api),
            ("DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY", &self.mint),
            ("DAISI_WS_AUTH_TOKEN_AES_KEY", &self.user_token),
            ("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", &self.admin_token),
        ]
    }
}

/// Shows none of them.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(<redacted>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_show_themselves() {
        let keys = Keys::random();
        assert_eq!(format!("{keys:?}"), "Keys(<redacted>)");
        assert_ne!(keys.user_token, keys.admin_token);
        assert_eq!(keys.user_token.len(), 64);
    }
}
