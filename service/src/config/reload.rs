//! The configuration in force, and how a new one takes its place.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::{Config, ConfigError, Problem, Secrets, Sources, file_watch::FileWatch, keys, redact, validate};
use crate::{
    metrics::{Metrics, labels::Reloaded},
    runtime::lifecycle::Tasks,
    telemetry::{
        Chain,
        audit::{Action, Actor, Audit, Refused},
    },
};

/// How long a change is left to settle: an editor's save and Kubernetes' swap are several events each, a few milliseconds apart.
const SETTLE: Duration = Duration::from_millis(300);

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// Nothing is different; nobody is told.
    Unchanged,
    /// What a reload can apply is in force.
    Applied {
        /// The keys that are in force with another value than before.
        changed: Vec<String>,
        /// The keys with another value than the one in force, which stays until the next start.
        need_restart: Vec<String>,
    },
    /// The old configuration stays whole; this says why.
    Refused(ConfigError),
}

/// Holds the configuration in force. Clones share it.
///
/// Subscribers see whole, valid snapshots only, in the order in which they came into force.
#[derive(Debug, Clone)]
pub struct ConfigWatch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: watch::Sender<Arc<Config>>,
    sources: Option<Sources>,
    metrics: Arc<Metrics>,
    /// Rings when a reload is wanted; rings that come while one runs are one more.
    wanted: Arc<Notify>,
    /// What was read last, keys that wait for a restart included. Held while reloading: one at a time, or an older file could
    /// win.
    read: Mutex<Arc<Config>>,
}

impl ConfigWatch {
    /// Starts from a configuration that was loaded from `sources`.
    #[must_use]
    pub fn new(config: Config, sources: Sources, metrics: Arc<Metrics>) -> Self {
        Self::with(config, Some(sources), metrics)
    }

    /// Holds a configuration that was put together by hand; reloads leave it as it is.
    #[must_use]
    pub fn fixed(config: Config, metrics: Arc<Metrics>) -> Self {
        Self::with(config, None, metrics)
    }

    fn with(config: Config, sources: Option<Sources>, metrics: Arc<Metrics>) -> Self {
        let config = Arc::new(config);
        let (current, read) = (watch::channel(Arc::clone(&config)).0, Mutex::new(config));
        Self { shared: Arc::new(Shared { current, sources, metrics, wanted: Arc::default(), read }) }
    }

    /// The snapshot in force now.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// Follows the snapshots.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.shared.current.subscribe()
    }

    /// Asks the task of [`ConfigWatch::start`] for a reload and returns at once. For SIGHUP.
    pub(crate) fn request_reload(&self) {
        self.shared.wanted.notify_one();
    }

    /// Reads the sources anew; swaps the snapshot whole, or on any error keeps the old one. Logs and counts what came of it.
    ///
    /// Blocks on small files: from a task, use [`ConfigWatch::request_reload`].
    pub fn reload(&self) -> Reload {
        let Some(sources) = &self.shared.sources else { return Reload::Unchanged };
        let mut last_read = self.shared.read.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match sources.load(Secrets::Required) {
            Ok(read) if read == **last_read => Reload::Unchanged,
            Ok(read) => match self.swap(&read) {
                Ok(applied) => {
                    *last_read = Arc::new(read);
                    applied
                }
                Err(error) => Reload::Refused(error),
            },
            Err(error) => Reload::Refused(error),
        };
        self.report(&outcome);
        outcome
    }

    /// Puts what a reload applies in force, if it goes with all that stays.
    fn swap(&self, read: &Config) -> Result<Reload, ConfigError> {
        let running = self.current();
        let merged = keys::in_force(&running, read);
        let (changed, need_restart) = (changed_keys(&running, &merged), changed_keys(&merged, read));
        check(&merged, &need_restart)?;
        if !changed.is_empty() {
            self.shared.current.send_replace(Arc::new(merged));
        }
        self.shared.metrics.config_keys_waiting.set(i64::try_from(need_restart.len()).unwrap_or(i64::MAX));
        Ok(Reload::Applied { changed, need_restart })
    }

    fn report(&self, outcome: &Reload) {
        let audit = Audit::of(Action::ReloadConfig, Actor::default());
        let count = |outcome: Reloaded| self.shared.metrics.config_reloads_total.with_label_values(&[outcome.as_str()]).inc();
        match outcome {
            Reload::Unchanged => tracing::debug!("the configuration was read again and is the same"),
            Reload::Applied { changed, need_restart } if need_restart.is_empty() => {
                count(Reloaded::Applied);
                Audit { what: Some(&changed.join(", ")), ..audit }.log("the configuration was reloaded");
            }
            Reload::Applied { changed, need_restart } => {
                count(Reloaded::Applied);
                Audit { what: Some(&changed.join(", ")), ..audit }.log("the configuration was reloaded");
                tracing::warn!(
                    config.need_restart = need_restart.join(", "),
                    "some keys of the configuration stay as they are until the next start"
                );
            }
            Reload::Refused(error) => {
                count(Reloaded::Refused);
                // The reason may quote a value, and is in the line below, which shows no secret.
                let refused = Refused { code: "InvalidConfiguration", message: "the configuration is not valid" };
                Audit { refused: Some(refused), ..audit }.log("the configuration was not reloaded");
                tracing::error!(error = %Chain(error), "the configuration was not reloaded: the old one stays in force");
            }
        }
    }

    /// Reloads when the file changes or [`ConfigWatch::request_reload`] asks for it, until the drain begins.
    pub fn start(&self, tasks: &Tasks) {
        let (this, soft) = (self.clone(), tasks.shutdown().soft.clone());
        tasks.supervise("config-reload", move || {
            let (this, soft) = (this.clone(), soft.clone());
            async move { soft.run_until_cancelled_owned(this.follow()).await.unwrap_or(()) }
        });
    }

    /// Never ends. Dropping it stops the watching.
    async fn follow(self) {
        let wanted = Arc::clone(&self.shared.wanted);
        let _watch = self.watch_file();
        loop {
            wanted.notified().await;
            tokio::time::sleep(SETTLE).await;
            // What rang while it settled is read below as well.
            let _ = wanted.notified().now_or_never();
            let this = self.clone();
            if tokio::task::spawn_blocking(move || this.reload()).await.is_err() {
                // The panic hook has logged why; a reload that panics changes nothing.
                self.shared.metrics.config_reloads_total.with_label_values(&[Reloaded::Refused.as_str()]).inc();
            }
        }
    }

    fn watch_file(&self) -> Option<FileWatch> {
        let file = self.shared.sources.as_ref()?.file()?;
        match FileWatch::start(file, Arc::clone(&self.shared.wanted)) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), config.file = %file.display(), "the configuration file can't be watched: only SIGHUP reloads it");
                None
            }
        }
    }
}

/// Checks what will be in force; what was read is good by itself, but a part of it waits.
fn check(merged: &Config, waiting: &[String]) -> Result<(), ConfigError> {
    let problem = |(key, reason): validate::Breach| {
        let waits = waiting.iter().any(|waiting| *waiting == key);
        Problem::new(key, reason, waits.then_some("the last start; the new value waits for the next"))
    };
    let mut problems: Vec<_> = validate::validate(merged, Secrets::Required).into_iter().map(problem).collect();
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort_by(|a, b| a.key.cmp(&b.key));
    Err(ConfigError { problems })
}

/// The keys whose values differ, in alphabetical order.
fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    compare(&redact::plain_tree(old), &redact::plain_tree(new), "", &mut changed);
    // In a tree every secret looks the same.
    for ((key, old), (_, new)) in old.secrets().into_iter().zip(new.secrets()) {
        if old != new && !changed.iter().any(|known| known == key) {
            changed.push(key.to_owned());
        }
    }
    changed.sort_unstable();
    changed
}

fn compare(old: &Value, new: &Value, key: &str, changed: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(value, new.get(name).unwrap_or(&Value::Null), &below, changed);
            }
        }
        (old, new) if old != new => changed.push(key.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::{config::testing, runtime::lifecycle::Shutdown};

    struct Fixture {
        watch: ConfigWatch,
        metrics: Arc<Metrics>,
        directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new(variables: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("config.yaml"), "app: {max_connections: 10}").unwrap();
            Self::over(directory, "config.yaml", variables)
        }

        fn over(directory: tempfile::TempDir, file: &str, variables: &[(&str, &str)]) -> Self {
            let mut all = testing::SECRETS.to_vec();
            all.extend(variables);
            let sources = Sources::new(Some(directory.path().join(file)), testing::environment(&all));
            let metrics = Arc::new(Metrics::new().unwrap());
            let config = sources.load(Secrets::Required).unwrap();
            Self { watch: ConfigWatch::new(config, sources, Arc::clone(&metrics)), metrics, directory }
        }

        fn file(&self) -> PathBuf {
            self.directory.path().join("config.yaml")
        }

        fn write(&self, text: &str) {
            std::fs::write(self.file(), text).unwrap();
        }

        fn count(&self, outcome: &str) -> u64 {
            self.metrics.config_reloads_total.with_label_values(&[outcome]).get()
        }

        fn start(&self) -> Tasks {
            let tasks = Tasks::new(Shutdown::default(), Arc::clone(&self.metrics), tracing::Span::none());
            self.watch.start(&tasks);
            tasks
        }
    }

    /// Waits until the snapshot allows `max` connections, making the change again until it is noticed: watching starts some time
    /// after the task does.
    async fn until_max_connections(fixture: &Fixture, max: usize, change: impl Fn()) {
        let mut snapshots = fixture.watch.subscribe();
        let seen = async {
            loop {
                change();
                let wait = snapshots.wait_for(|config| config.app.max_connections == max);
                if tokio::time::timeout(Duration::from_secs(2), wait).await.is_ok() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
    }

    #[test]
    fn a_reload_swaps_the_snapshot_whole() {
        let fixture = Fixture::new(&[]);
        let before = fixture.watch.current();
        fixture.write("app: {max_connections: 20, pong_wait_seconds: 90}");
        let changed = vec!["app.max_connections".to_owned(), "app.pong_wait_seconds".to_owned()];
        assert_eq!(fixture.watch.reload(), Reload::Applied { changed, need_restart: Vec::new() });
        assert_eq!((before.app.max_connections, fixture.watch.current().app.max_connections), (10, 20));
        assert_eq!((fixture.count("applied"), fixture.count("refused")), (1, 0));
        assert_eq!(fixture.watch.reload(), Reload::Unchanged);
        assert_eq!(fixture.count("applied"), 1);
    }

    #[test]
    fn on_any_error_the_old_configuration_stays() {
        let fixture = Fixture::new(&[]);
        for bad in ["app: {max_connections: 0}", "app: [", "app: {bogus: 1}"] {
            fixture.write(bad);
            assert!(matches!(fixture.watch.reload(), Reload::Refused(_)), "{bad}");
        }
        std::fs::remove_file(fixture.file()).unwrap();
        assert!(matches!(fixture.watch.reload(), Reload::Refused(_)));
        assert_eq!(fixture.watch.current().app.max_connections, 10);
        assert_eq!((fixture.count("applied"), fixture.count("refused")), (0, 4));
    }

    #[test]
    fn keys_that_wait_for_a_restart_are_named() {
        let fixture = Fixture::new(&[]);
        fixture.write("app: {max_connections: 11}\nserver: {http_port: 9000}\nnats: {url: 'nats://joe:pw@nats:4222'}");
        let Reload::Applied { changed, need_restart } = fixture.watch.reload() else { panic!("not applied") };
        assert_eq!(changed, ["app.max_connections"]);
        assert_eq!(need_restart, ["nats.url", "server.http_port"]);
        assert_eq!(fixture.metrics.config_keys_waiting.get(), 2);
        // A new password in a URL is a change, though both are shown alike.
        fixture.write("app: {max_connections: 11}\nserver: {http_port: 9000}\nnats: {url: 'nats://joe:other@nats:4222'}");
        let Reload::Applied { changed, need_restart } = fixture.watch.reload() else { panic!("not applied") };
        assert_eq!((changed.len(), need_restart), (0, vec!["nats.url".to_owned(), "server.http_port".to_owned()]));
        assert_eq!(fixture.watch.reload(), Reload::Unchanged);
        // Taken back, nothing waits any more.
        fixture.write("app: {max_connections: 11}");
        assert_eq!(fixture.watch.reload(), Reload::Applied { changed: Vec::new(), need_restart: Vec::new() });
        assert_eq!(fixture.metrics.config_keys_waiting.get(), 0);
    }

    #[test]
    fn a_reload_is_checked_as_what_will_be_in_force() {
        let fixture = Fixture::new(&[]);
        // Good by itself, but the renewals stay at 10 s until the next start.
        fixture.write("app: {session_ttl_seconds: 12, ttl_refresh_interval_seconds: 5}");
        let Reload::Refused(error) = fixture.watch.reload() else { panic!("not refused") };
        let expected = "app.ttl_refresh_interval_seconds must be less than half of app.session_ttl_seconds (set by the last start; the new value waits for the next)";
        assert_eq!(error.problems.iter().map(Problem::to_string).collect::<Vec<_>>(), [expected]);
        // Nor is a file taken that the next start would stumble over.
        fixture.write("app: {session_ttl_seconds: 40, ttl_refresh_interval_seconds: 25}");
        assert!(matches!(fixture.watch.reload(), Reload::Refused(_)));
        assert_eq!(fixture.watch.current().app.session_ttl, Duration::from_secs(30));
    }

    /// Another good value for a key, and what has to go with it.
    fn another(key: &str, value: &figment::value::Value) -> Vec<(String, String)> {
        let text = match (key, value) {
            ("server.bind_address" | "server.grpc_bind_address" | "server.probe_bind_address", _) => "127.0.0.1".into(),
            ("server.proxy_protocol", _) => "required".into(),
            ("server.allowed_origins", _) => "https://desk.example.com".into(),
            ("server.trusted_proxies", _) => "10.0.0.0/8".into(),
            ("server.grpc_advertise_address" | "redis.address", _) => "other:6379".into(),
            ("nats.url", _) => "nats://other:4222".into(),
            ("auth.token_aes_key", _) => "ab".repeat(32),
            ("auth.admin_token_aes_key", _) => "cd".repeat(32),
            ("auth.token_cache", _) => "memory".into(),
            ("app.websocket_backpressure_drop_policy", _) => "block".into(),
            ("app.websocket_compression_mode", _) => "context_takeover".into(),
            ("app.memory_budget_bytes", _) => "67108864".into(),
            ("app.redis_outage_policy", _) => "strict".into(),
            ("telemetry.log_level", _) => "debug".into(),
            ("telemetry.log_format", _) => "json".into(),
            ("telemetry.otlp_endpoint", _) => "http://collector:4317".into(),
            (_, value) => match (value.to_bool(), value.to_u128(), value.to_f64()) {
                (Some(on), ..) => (!on).to_string(),
                (_, Some(number), _) => (number + 1).to_string(),
                (.., Some(_)) => "0.5".into(),
                _ => "another-value-of-this-key".into(),
            },
        };
        let with = match key {
            "nats.password" => vec![("nats.user", "joe")],
            "server.proxy_protocol" => vec![("server.trusted_proxies", "10.0.0.0/8")],
            "redis.username" => vec![("redis.password", "secret-of-redis")],
            "redis.ca_file" => vec![("redis.tls", "true")],
            key if key.starts_with("server.grpc_tls_") => vec![
                ("server.grpc_tls_certificate_file", "tls.crt"),
                ("server.grpc_tls_key_file", "tls.key"),
                ("server.grpc_tls_ca_file", "ca.crt"),
            ],
            _ => Vec::new(),
        };
        let with = with.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        std::iter::once((key.to_owned(), text)).chain(with).collect()
    }

    #[test]
    fn a_key_that_waits_for_a_restart_cannot_be_seen_before_it_and_every_other_can() {
        let tree = keys::defaults().unwrap();
        for (key, value) in keys::leaves(&tree) {
            let variables: Vec<_> = another(&key, value).into_iter().map(|(key, text)| (keys::variable(&key), text)).collect();
            let mut all: BTreeMap<String, String> =
                testing::SECRETS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            all.extend(variables);
            let sources = Sources::new(None, all.into_iter().map(|(name, value)| (name.into(), value.into())));
            let metrics = Arc::new(Metrics::new().unwrap());
            let mut running = testing::config();
            if key == "server.proxy_protocol" {
                // It can't be without them, and they reload by themselves.
                running.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
            }
            let watch = ConfigWatch::new(running, sources, metrics);
            let (before, readers) = (watch.current(), watch.subscribe());
            let Reload::Applied { changed, need_restart } = watch.reload() else { panic!("{key} was not applied") };
            if keys::is_reloadable(&key) {
                assert_eq!((changed, need_restart), (vec![key.clone()], Vec::new()));
                assert_ne!(watch.current(), before, "{key}");
            } else {
                assert!(changed.is_empty() && need_restart.contains(&key), "{key}: {changed:?}, {need_restart:?}");
                assert_eq!(watch.current(), before, "{key}");
                assert!(!readers.has_changed().unwrap(), "{key}");
            }
        }
    }

    #[test]
    fn a_secret_that_changed_is_named_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("redis-password");
        std::fs::write(&secret, "first").unwrap();
        std::fs::write(directory.path().join("config.yaml"), "").unwrap();
        let path = secret.to_str().unwrap().to_owned();
        let fixture = Fixture::over(directory, "config.yaml", &[("DAISI_WS_REDIS_PASSWORD_FILE", &path)]);
        std::fs::write(&secret, "second\n").unwrap();
        let need_restart = vec!["redis.password".to_owned()];
        assert_eq!(fixture.watch.reload(), Reload::Applied { changed: Vec::new(), need_restart });
        assert_eq!(fixture.watch.current().redis.password.expose(), "first");
    }

    #[test]
    fn a_configuration_made_by_hand_is_left_alone() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let watch = ConfigWatch::fixed(testing::config(), metrics);
        assert_eq!(watch.reload(), Reload::Unchanged);
    }

    #[tokio::test]
    async fn a_file_that_is_written_is_reloaded() {
        let fixture = Fixture::new(&[]);
        let tasks = fixture.start();
        until_max_connections(&fixture, 30, || fixture.write("app: {max_connections: 30}")).await;
        tasks.shutdown().soft.cancel();
        tasks.ended().await;
    }

    #[tokio::test]
    async fn a_file_that_another_is_moved_over_is_reloaded() {
        let fixture = Fixture::new(&[]);
        let tasks = fixture.start();
        until_max_connections(&fixture, 40, || {
            let new = fixture.directory.path().join("new.yaml");
            std::fs::write(&new, "app: {max_connections: 40}").unwrap();
            std::fs::rename(new, fixture.file()).unwrap();
        })
        .await;
        tasks.shutdown().soft.cancel();
        tasks.ended().await;
    }

    /// As the kubelet does it: a new directory, and one rename of the link that all files go through.
    fn swap_config_map(mount: &Path, version: &str, text: &str) {
        let data = mount.join(format!("..{version}"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("config.yaml"), text).unwrap();
        let link = mount.join("..data_tmp");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("..{version}"), &link).unwrap();
        std::fs::rename(link, mount.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn a_config_map_that_is_swapped_is_reloaded_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().to_owned();
        swap_config_map(&mount, "1", "app: {max_connections: 1}");
        std::os::unix::fs::symlink("..data/config.yaml", mount.join("config.yaml")).unwrap();
        let fixture = Fixture::over(directory, "config.yaml", &[]);
        let tasks = fixture.start();
        for (version, max) in [("2", 2), ("3", 3)] {
            let text = format!("app: {{max_connections: {max}}}");
            until_max_connections(&fixture, max, || swap_config_map(&mount, version, &text)).await;
            let _ = std::fs::remove_dir_all(mount.join("..1"));
        }
        tasks.shutdown().soft.cancel();
        tasks.ended().await;
    }

    #[tokio::test]
    async fn a_reload_that_is_asked_for_happens_without_a_change_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let secret_directory = tempfile::tempdir().unwrap();
        let secret = secret_directory.path().join("password");
        std::fs::write(&secret, "first").unwrap();
        std::fs::write(directory.path().join("config.yaml"), "").unwrap();
        let path = secret.to_str().unwrap().to_owned();
        let fixture = Fixture::over(directory, "config.yaml", &[("DAISI_WS_REDIS_PASSWORD_FILE", &path)]);
        let tasks = fixture.start();
        std::fs::write(&secret, "second").unwrap();
        fixture.watch.request_reload();
        let seen = async {
            while fixture.metrics.config_keys_waiting.get() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
        tasks.shutdown().soft.cancel();
        tasks.ended().await;
    }
}
