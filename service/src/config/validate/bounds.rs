//! Upper bounds of every number: generous for any deployment, and small enough that no arithmetic with them overflows, no time
//! leaves the clock's range, and none is beyond what Redis and NATS can store.

use serde_json::Value;

use super::breaches::Breaches;
use crate::config::{Config, redact};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const YEAR: u64 = 366 * DAY;
const MIB: u64 = 1 << 20;

/// What holds for a key that is not in [`LARGEST`], by its unit.
const LARGEST_OF_SECONDS: u64 = WEEK;
const LARGEST_OF_MILLISECONDS: u64 = MINUTE * 1000;
const LARGEST_OF_OTHERS: u64 = 1_000_000;

/// Keys whose unit says too little.
const LARGEST: &[(&str, u64)] = &[
    ("server.ready_grace_seconds", HOUR),
    ("limits.pending_connections", 4096),
    ("limits.pending_connections_per_address", 4096),
    ("nats.stream_max_age_seconds", 10 * YEAR),
    ("nats.stream_max_bytes", i64::MAX as u64),
    ("redis.db", i32::MAX as u64),
    ("redis.pool_size", 1024),
    ("redis.session_lock_retry_delay_ms", 10_000),
    ("auth.max_token_ttl_seconds", 10 * YEAR),
    ("auth.token_cache_ttl_seconds", DAY),
    ("auth.admin_token_cache_ttl_seconds", DAY),
    ("app.session_ttl_seconds", DAY),
    ("app.ttl_refresh_interval_seconds", DAY),
    ("app.selected_chat_ttl_seconds", YEAR),
    ("app.pod_ttl_seconds", 5 * MINUTE),
    ("app.websocket_buffer_max_bytes", 1024 * MIB),
    ("app.websocket_burst_max_bytes", 1024 * MIB),
    ("app.websocket_burst_total_bytes", 65_536 * MIB),
    ("app.memory_budget_bytes", 1024 * 1024 * MIB),
    ("app.websocket_compression_threshold", 1024 * MIB),
    ("app.max_message_bytes", 64 * MIB),
    ("app.client_bytes_per_second", 1024 * MIB),
    ("app.ping_interval_seconds", HOUR),
    ("app.pong_wait_seconds", DAY),
    ("app.write_timeout_seconds", HOUR),
    ("app.max_connections", 10_000_000),
    ("app.grpc_client_forward_timeout_seconds", 5 * MINUTE),
    ("app.grpc_pool_idle_timeout_seconds", DAY),
    ("app.grpc_pool_health_check_interval_seconds", DAY),
    ("app.grpc_circuitbreaker_open_duration_seconds", HOUR),
    ("app.nats_ack_wait_seconds", HOUR),
    ("app.shutdown_timeout_seconds", HOUR),
    ("resume.max_events", 100_000),
    ("resume.max_bytes", 64 * MIB),
    ("resume.max_in_flight", 4096),
    ("resume.timeout_seconds", MINUTE),
    ("resume.window_min_clients", 1_000_000),
    ("resume.window_max_bytes", 65_536 * MIB),
];

/// The largest value that the key may have.
pub(super) fn largest(key: &str) -> u64 {
    let by_unit = || match key {
        key if key.ends_with("_seconds") => LARGEST_OF_SECONDS,
        key if key.ends_with("_ms") => LARGEST_OF_MILLISECONDS,
        _ => LARGEST_OF_OTHERS,
    };
    LARGEST.iter().find(|(known, _)| *known == key).map_or_else(by_unit, |(_, largest)| *largest)
}

/// Finds every whole number that is too large.
pub(super) fn check(config: &Config, breaches: &mut Breaches) {
    check_below(&redact::plain_tree(config), "", breaches);
}

fn check_below(tree: &Value, key: &str, breaches: &mut Breaches) {
    match tree {
        Value::Object(entries) => {
            for (name, value) in entries {
                let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                check_below(value, &below, breaches);
            }
        }
        Value::Number(number) => {
            let largest = largest(key);
            let fits = number.as_u64().is_none_or(|number| number <= largest);
            breaches.require(fits, key.to_owned(), format!("must be at most {largest}"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use figment::{
        Figment,
        providers::{Format as _, Serialized},
    };

    use super::*;
    use crate::config::{Yaml, keys};

    #[test]
    fn every_bound_is_of_a_key_and_above_its_default() {
        let tree = keys::defaults().unwrap();
        assert!(LARGEST.iter().all(|(key, _)| keys::leaves(&tree).contains_key(*key)));
        let mut breaches = Breaches(Vec::new());
        check(&crate::config::testing::config(), &mut breaches);
        assert_eq!(breaches.0, []);
    }

    #[test]
    fn no_number_may_be_as_large_as_its_type_allows() {
        let tree = keys::defaults().unwrap();
        for (key, value) in keys::leaves(&tree).into_iter().filter(|(_, value)| value.to_u128().is_some()) {
            for number in [largest(&key).saturating_add(1), u64::MAX] {
                let merged = Figment::from(Yaml::string(keys::DEFAULTS)).merge(Serialized::default(&key, number));
                // Ports and the like have types that do not hold it.
                let Ok(config) = merged.extract::<Config>() else { continue };
                let mut breaches = Breaches(Vec::new());
                check(&config, &mut breaches);
                let named: Vec<_> = breaches.0.iter().map(|(key, _)| &**key).collect();
                assert_eq!(named, [key.as_str()], "{number}, by default {value:?}");
            }
        }
    }
}
