//! What is allowed, and seldom meant, in production.

use std::{borrow::Cow, path::Path};

use super::{Config, Secret, Sources, secret::is_open_to_all};

/// A key, and what to think about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The key.
    pub key: Cow<'static, str>,
    /// What may go wrong. Shows no secret.
    pub reason: String,
}

impl Config {
    /// What a pod of a real fleet says once at its start. Looks at the modes of the files that hold secrets, so it blocks.
    #[must_use]
    pub fn warnings(&self, sources: &Sources) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |key: &'static str, reason: String| warnings.push(Warning { key: key.into(), reason });
        if self.server.allowed_origins.is_empty() {
            let reason = "is empty: pages of any origin may open sockets with what they have of keys and tokens; list yours, or \"*\" where that is meant";
            warn("server.allowed_origins", reason.to_owned());
        }
        let exposed = |path: &Path| {
            format!(
                "comes from {}, which every user of this host may read or write: take that right away (chmod o-rw)",
                path.display()
            )
        };
        for (key, secret) in self.secrets() {
            if let Some(path) = secret.exposed_file() {
                warn(key, exposed(path));
            }
        }
        if let Some(path) = self.nats.credentials_file.as_deref().filter(|path| is_open_to_all(path)) {
            warn("nats.credentials_file", exposed(path));
        }
        let in_file = |key: &str, secret: &Secret| !secret.is_empty() && !secret.has_file() && !sources.has_variable(key);
        if let Some(file) = sources.file().filter(|path| is_open_to_all(path))
            && let Some((key, _)) = self.secrets().into_iter().find(|(key, secret)| in_file(key, secret))
        {
            warn(key, exposed(file));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::config::{Secrets, Sources, testing};

    fn set_mode(path: &std::path::Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn warned_of(sources: &Sources) -> Vec<String> {
        let warnings = sources.load(Secrets::Required).unwrap().warnings(sources);
        warnings.into_iter().map(|warning| warning.key.into_owned()).collect()
    }

    fn sources(file: Option<&std::path::Path>, variables: &[(&str, &str)]) -> Sources {
        let all = testing::SECRETS.iter().chain(variables).copied().collect::<Vec<_>>();
        Sources::new(file.map(Into::into), testing::environment(&all))
    }

    const OURS: (&str, &str) = ("DAISI_WS_SERVER_ALLOWED_ORIGINS", "https://desk.example.com");

    #[test]
    fn origins_that_nobody_chose_are_warned_of() {
        assert_eq!(warned_of(&sources(None, &[])), ["server.allowed_origins"]);
        for chosen in [OURS.1, "*"] {
            assert!(warned_of(&sources(None, &[(OURS.0, chosen)])).is_empty());
        }
    }

    #[test]
    fn a_secret_that_every_user_of_the_host_may_read_is_warned_of_by_its_key_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let (password, config) = (folder.path().join("password"), folder.path().join("config.yaml"));
        std::fs::write(&password, "hunter2").unwrap();
        std::fs::write(&config, "nats: {user: joe, password: hunter2}").unwrap();
        let variables = [OURS, ("DAISI_WS_REDIS_PASSWORD_FILE", password.to_str().unwrap())];
        let sources = sources(Some(&config), &variables);
        for (mode, keys) in [(0o644, &["redis.password", "nats.password"][..]), (0o640, &[])] {
            set_mode(&password, mode);
            set_mode(&config, mode);
            assert_eq!(warned_of(&sources), keys);
        }
        set_mode(&password, 0o644);
        let warnings = sources.load(Secrets::Required).unwrap().warnings(&sources);
        assert!(warnings[0].reason.contains(password.to_str().unwrap()) && !warnings[0].reason.contains("hunter2"));
        // A file without secrets is nobody's secret.
        set_mode(&password, 0o600);
        std::fs::write(&config, "app: {max_connections: 10}").unwrap();
        set_mode(&config, 0o644);
        assert!(warned_of(&sources).is_empty());
    }
}
