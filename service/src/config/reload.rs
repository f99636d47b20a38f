//! The configuration in force, and how a new one takes its place.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::{Config, ConfigError, Secrets, Sources, file_watch::FileWatch, keys::is_reloadable, redact};
use crate::{lifecycle::Tasks, metrics::Metrics};

/// How long a change is left to settle: an editor's save and Kubernetes' swap are several events each, a few milliseconds apart.
const SETTLE: Duration = Duration::from_millis(300);

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// Nothing is different.
    Unchanged,
    /// The new configuration is in force.
    Applied {
        /// The keys that changed.
        changed: Vec<String>,
        /// Those of them that only a restart applies, though the snapshot has them.
        need_restart: Vec<String>,
    },
    /// The old configuration stays.
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
    /// One reload at a time, or an older file could win.
    reloading: Mutex<()>,
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
        let (current, _) = watch::channel(Arc::new(config));
        Self { shared: Arc::new(Shared { current, sources, metrics, wanted: Arc::default(), reloading: Mutex::default() }) }
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
    pub fn request_reload(&self) {
        self.shared.wanted.notify_one();
    }

    /// Reads the sources anew; swaps the snapshot whole, or on any error keeps the old one. Logs and counts what came of it.
    ///
    /// Blocks on small files: from a task, use [`ConfigWatch::request_reload`].
    pub fn reload(&self) -> Reload {
        let Some(sources) = &self.shared.sources else { return Reload::Unchanged };
        let _one = self.shared.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match sources.load(Secrets::Required) {
            Ok(new) => self.swap(new),
            Err(error) => Reload::Refused(error),
        };
        self.report(&outcome);
        outcome
    }

    fn swap(&self, new: Config) -> Reload {
        let changed = changed_keys(&self.current(), &new);
        if changed.is_empty() {
            return Reload::Unchanged;
        }
        let need_restart = changed.iter().filter(|key| !is_reloadable(key)).cloned().collect();
        self.shared.current.send_replace(Arc::new(new));
        Reload::Applied { changed, need_restart }
    }

    fn report(&self, outcome: &Reload) {
        let count = |outcome| self.shared.metrics.config_reloads_total.with_label_values(&[outcome]).inc();
        match outcome {
            Reload::Unchanged => tracing::debug!("the configuration was read again and is the same"),
            Reload::Applied { changed, need_restart } if need_restart.is_empty() => {
                count("applied");
                tracing::info!(config.changed = changed.join(", "), "the configuration was reloaded");
            }
            Reload::Applied { changed, need_restart } => {
                count("applied");
                tracing::warn!(
                    config.changed = changed.join(", "),
                    config.need_restart = need_restart.join(", "),
                    "the configuration was reloaded, but some keys take effect only at the next start"
                );
            }
            Reload::Refused(error) => {
                count("refused");
                tracing::error!(%error, "the configuration was not reloaded: the old one stays in force");
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
                self.shared.metrics.config_reloads_total.with_label_values(&["refused"]).inc();
            }
        }
    }

    fn watch_file(&self) -> Option<FileWatch> {
        let file = self.shared.sources.as_ref()?.file()?;
        match FileWatch::start(file, Arc::clone(&self.shared.wanted)) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, config.file = %file.display(), "the configuration file can't be watched: only SIGHUP reloads it");
                None
            }
        }
    }
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
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::{config::testing, lifecycle::Shutdown};

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

    /// Waits until the snapshot allows `max` connections, making the change again until it is noticed: watching starts some time after
    /// the task does.
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
        assert_eq!(changed, ["app.max_connections", "nats.url", "server.http_port"]);
        assert_eq!(need_restart, ["nats.url", "server.http_port"]);
        // A new password in a URL is a change, though both are shown alike.
        fixture.write("app: {max_connections: 11}\nserver: {http_port: 9000}\nnats: {url: 'nats://joe:other@nats:4222'}");
        let Reload::Applied { changed, .. } = fixture.watch.reload() else { panic!("not applied") };
        assert_eq!(changed, ["nats.url"]);
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
        let keys = vec!["redis.password".to_owned()];
        assert_eq!(fixture.watch.reload(), Reload::Applied { changed: keys.clone(), need_restart: keys });
        assert_eq!(fixture.watch.current().redis.password.expose(), "second");
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
        let mut snapshots = fixture.watch.subscribe();
        let seen = snapshots.wait_for(|config| config.redis.password.expose() == "second");
        tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap().unwrap();
        tasks.shutdown().soft.cancel();
        tasks.ended().await;
    }
}
