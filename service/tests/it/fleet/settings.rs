//! Any configuration that is valid can be run with: no time that leaves the clock's range, no count that overflows.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use daisi_ws_service::config::{Config, Secrets, Sources, Yaml};
use figment::{Figment, providers::Format as _};
use proptest::{collection::vec, prelude::*};
use serde_json::Value;

use crate::support::{
    config::test_config,
    fleet::{Fleet, user},
};

/// Every whole number of the configuration, with its default.
fn numbers() -> Vec<(String, u64)> {
    fn walk(tree: &Value, above: &str, found: &mut Vec<(String, u64)>) {
        for (name, value) in tree.as_object().unwrap() {
            let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            match value {
                Value::Object(_) => walk(value, &key, found),
                // Nothing listens here.
                Value::Number(_) if key.ends_with("_port") => {}
                Value::Number(number) => found.extend(number.as_u64().map(|number| (key, number))),
                _ => {}
            }
        }
    }
    let tree: Value = Figment::from(Yaml::string(include_str!("../../../config/default.yaml"))).extract().unwrap();
    let mut found = Vec::new();
    walk(&tree, "", &mut found);
    found
}

/// The configuration with these values, as far as they are valid: one that is too large becomes the largest there may be, any
/// other that is refused, or that a default does not go with, the default.
fn load(mut values: BTreeMap<String, u64>) -> Config {
    let secrets = test_config().auth;
    let secrets = [
        ("SECRET_TOKEN", secrets.secret_token),
        ("TOKEN_AES_KEY", secrets.token_aes_key),
        ("ADMIN_TOKEN_AES_KEY", secrets.admin_token_aes_key),
        ("TOKEN_GENERATION_ADMIN_KEY", secrets.token_generation_admin_key),
    ];
    let empty = tempfile::NamedTempFile::new().unwrap();
    loop {
        let keys = secrets.iter().map(|(name, secret)| (format!("DAISI_WS_AUTH_{name}"), secret.expose().to_owned()));
        let numbers =
            values.iter().map(|(key, value)| (format!("DAISI_WS_{}", key.replace('.', "_").to_uppercase()), value.to_string()));
        let environment = keys.chain(numbers).map(|(name, value)| (name.into(), value.into()));
        match Sources::new(Some(empty.path().to_owned()), environment).load(Secrets::Required) {
            Ok(config) => return config,
            Err(error) => {
                for problem in error.problems {
                    let largest = problem.reason.strip_prefix("must be at most ").and_then(|number| number.parse().ok());
                    if let Some(largest) = largest {
                        values.insert(problem.key, largest);
                    } else if values.remove(&problem.key).is_none() {
                        // A default does not go with another value, which the reason names.
                        values.retain(|key, _| !problem.reason.contains(key));
                    }
                }
            }
        }
    }
}

/// A user connects, gets events, selects a chat, waits; the pod drains.
async fn run(config: &Config) -> f64 {
    let fleet = Fleet::with(2, |settings| {
        settings.app = config.app.clone();
        settings.adaptive_ttl = config.adaptive_ttl.clone();
        settings.redis.session_lock_retry_delay = config.redis.session_lock_retry_delay;
    })
    .await;
    let mut clients = Vec::new();
    for pod in [0, 1, 0] {
        clients.extend(fleet.open(pod, user("acme", "a1", "sari"), 4096).await.map(super::super::support::client::Client::eager));
        clients.extend(fleet.open(pod, user("acme", "a1", &format!("u{pod}")), 512).await);
    }
    fleet.cut_link(0, 1, true);
    for _ in 0..3 {
        fleet.publish("wa.acme.a1.chats", "{}");
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    fleet.cut_link(0, 1, false);
    fleet.store.cut(&fleet.pods[0].id, true);
    tokio::time::sleep(Duration::from_secs(30)).await;
    fleet.store.cut(&fleet.pods[0].id, false);
    tokio::time::sleep(Duration::from_secs(30)).await;
    tokio::time::advance(Duration::from_secs(100_000)).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    for pod in &fleet.pods {
        pod.pod.drain(config.app.shutdown_timeout).await;
    }
    fleet.total("dws_task_panics_total")
}

fn panics(config: &Config) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(run(config))
}

/// Values that break things more often than others.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..3_u64,
        3..100_u64,
        (0..64_u32, -1..=1_i64).prop_map(|(power, off)| (1_u64 << power).saturating_add_signed(off)),
        Just(u64::MAX),
    ]
}

#[test]
fn with_every_number_at_its_largest_a_pod_runs() {
    let largest = load(numbers().into_iter().map(|(key, _)| (key, u64::MAX)).collect());
    assert_eq!(panics(&largest), 0.0);
}

#[test]
fn no_valid_configuration_makes_a_task_panic() {
    static RAN: AtomicU64 = AtomicU64::new(0);
    let numbers = numbers();
    let values = vec((value(), any::<bool>()), numbers.len());
    proptest!(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() }, |(values in values)| {
        let values = numbers.iter().zip(values).filter(|(_, (_, set))| *set);
        let config = load(values.map(|((key, _), (value, _))| (key.clone(), value)).collect());
        RAN.fetch_add(u64::from(config != load(BTreeMap::new())), Ordering::Relaxed);
        prop_assert_eq!(panics(&config), 0.0, "{:?}", config.app);
    });
    assert!(RAN.load(Ordering::Relaxed) >= 30, "too few configurations were valid");
}
