//! What is allowed, and seldom meant, in production.

use std::{borrow::Cow, net::IpAddr, path::Path};

use super::{Config, Secret, Sources, secret::is_open_to_all};

/// A key, and what to think about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// The key.
    pub key: Cow<'static, str>,
    /// What may go wrong. Shows no secret.
    pub reason: String,
}

impl Config {
    /// What a pod of a real fleet says once at its start. Looks at the modes of the files that hold secrets, so it blocks.
    #[must_use]
    pub(crate) fn warnings(&self, sources: &Sources) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |key: &'static str, reason: String| warnings.push(Warning { key: key.into(), reason });
        if self.server.allowed_origins.is_empty() {
            let reason = "is empty: pages of any origin may open sockets with what they have of keys and tokens; list \
                          yours, or \"*\" where that is meant";
            warn("server.allowed_origins", reason.to_owned());
        }
        let in_clear = |what: &str| format!("is off: {what} cross the network in the clear, with what authenticates this pod");
        if !self.redis.tls && !self.redis.password.is_empty() && !is_loopback(&self.redis.address) {
            warn("redis.tls", in_clear("locks, routes and kills"));
        }
        let nats = &self.nats;
        let logs_in = !nats.password.is_empty() || !nats.token.is_empty() || nats.credentials_file.is_some();
        let plain = |url: &str| !url.starts_with("tls://") && !url.starts_with("wss://") && !is_loopback(url);
        if !nats.tls && logs_in && nats.url.split(',').map(str::trim).any(plain) {
            warn("nats.tls", in_clear("events"));
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
        warnings.extend(sources.misspelt().into_iter().map(|found| Warning {
            reason: format!("is read by nobody: {} may be meant", found.meant),
            key: found.variable.into(),
        }));
        warnings
    }
}

/// Does an address, with or without scheme, user and port, name this host?
fn is_loopback(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    };
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
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
    fn a_variable_that_is_near_a_known_one_is_warned_of_and_its_value_not_shown() {
        let sources = sources(None, &[OURS, ("DAISI_WS_AUHT_SECRET_TOKEN", "hunter2"), ("DAISI_WS_CONFIG", "")]);
        let warnings = sources.load(Secrets::Required).unwrap().warnings(&sources);
        assert_eq!(warnings.iter().map(|warning| &*warning.key).collect::<Vec<_>>(), ["DAISI_WS_AUHT_SECRET_TOKEN"]);
        assert_eq!(warnings[0].reason, "is read by nobody: DAISI_WS_AUTH_SECRET_TOKEN may be meant");
    }

    #[test]
    fn passwords_that_cross_a_network_in_the_clear_are_warned_of() {
        let redis = |address, tls| {
            let password = ("DAISI_WS_REDIS_PASSWORD", "hunter2");
            warned_of(&sources(None, &[OURS, password, ("DAISI_WS_REDIS_ADDRESS", address), ("DAISI_WS_REDIS_TLS", tls)]))
        };
        assert_eq!(redis("redis:6379", "false"), ["redis.tls"]);
        assert!(redis("redis:6379", "true").is_empty());
        for here in ["localhost:6379", "127.0.0.1:6379", "[::1]:6379"] {
            assert!(redis(here, "false").is_empty(), "{here}");
        }
        let nats = |url, tls| {
            warned_of(&sources(
                None,
                &[OURS, ("DAISI_WS_NATS_TOKEN", "t"), ("DAISI_WS_NATS_URL", url), ("DAISI_WS_NATS_TLS", tls)],
            ))
        };
        assert_eq!(nats("tls://one:4222, nats://two:4222", "false"), ["nats.tls"]);
        for good in [
            ("nats://one:4222", "true"),
            ("tls://one:4222,tls://two:4222", "false"),
            ("nats://127.0.0.1:4222,nats://[::1]:4222", "false"),
        ] {
            assert!(nats(good.0, good.1).is_empty(), "{good:?}");
        }
        // Nothing to give away: no password, as on a network of their own.
        assert!(warned_of(&sources(None, &[OURS])).is_empty());
    }

    #[test]
    fn a_secret_that_every_user_of_the_host_may_read_is_warned_of_by_its_key_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let (password, config) = (folder.path().join("password"), folder.path().join("config.yaml"));
        std::fs::write(&password, "hunter2").unwrap();
        std::fs::write(&config, "nats: {user: joe, password: hunter2}").unwrap();
        let tls = [("DAISI_WS_REDIS_TLS", "true"), ("DAISI_WS_NATS_TLS", "true")];
        let variables = [&[OURS, ("DAISI_WS_REDIS_PASSWORD_FILE", password.to_str().unwrap())][..], &tls].concat();
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
