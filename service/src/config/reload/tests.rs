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
    let expected = "app.ttl_refresh_interval_seconds must be less than half of app.session_ttl_seconds \
                    (set by the last start; the new value waits for the next)";
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
