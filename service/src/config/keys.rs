//! The keys there are, as the embedded defaults have them, and what kind of value each takes.

use std::collections::BTreeMap;

use figment::{
    providers::Format as _,
    value::{Dict, Value},
};

use super::{
    Config, Yaml,
    problem::{ConfigError, Problem},
};

/// The file with every key, its default and its explanation.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.yaml");

/// What every environment variable of the gateway starts with.
pub(super) const PREFIX: &str = "DAISI_WS_";

macro_rules! reloadable {
    ($($key:literal => $section:ident.$($field:ident).+,)+) => {
        /// The keys that a reload applies; each other key is named in the log and waits for the next start.
        pub(crate) const RELOADABLE: &[&str] = &[$($key),+];

        /// What a pod that was started with `running` works with once `read` is there: its keys that a reload applies, and all
        /// others as they were. So no reader can see a key that waits for a restart before one.
        pub(super) fn in_force(running: &Config, read: &Config) -> Config {
            let mut merged = running.clone();
            $(merged.$section.$($field).+.clone_from(&read.$section.$($field).+);)+
            merged
        }
    };
}

reloadable! {
    "server.allowed_origins" => server.allowed_origins,
    "server.trusted_proxies" => server.trusted_proxies,
    "server.ready_grace_seconds" => server.ready_grace,
    "limits.pending_connections" => limits.pending_connections,
    "limits.pending_connections_per_address" => limits.pending_connections_per_address,
    "limits.connects_per_session_per_minute" => limits.connects_per_session_per_minute,
    "limits.connects_per_session_burst" => limits.connects_per_session_burst,
    "limits.connects_per_address_per_second" => limits.connects_per_address_per_second,
    "limits.connects_per_address_burst" => limits.connects_per_address_burst,
    "limits.connects_per_company_per_second" => limits.connects_per_company_per_second,
    "limits.connects_per_company_burst" => limits.connects_per_company_burst,
    "limits.failures_per_address_per_minute" => limits.failures_per_address_per_minute,
    "limits.failures_per_address_burst" => limits.failures_per_address_burst,
    "redis.session_lock_retry_delay_ms" => redis.session_lock_retry_delay,
    "auth.max_token_ttl_seconds" => auth.max_token_ttl,
    "auth.token_cache_ttl_seconds" => auth.token_cache_ttl,
    "auth.admin_token_cache_ttl_seconds" => auth.admin_token_cache_ttl,
    "app.session_ttl_seconds" => app.session_ttl,
    "app.route_ttl_seconds" => app.route_ttl,
    "app.selected_chat_ttl_seconds" => app.selected_chat_ttl,
    "app.websocket_message_buffer_size" => app.websocket_message_buffer_size,
    "app.websocket_buffer_max_bytes" => app.websocket_buffer_max_bytes,
    "app.websocket_burst_max_bytes" => app.websocket_burst_max_bytes,
    "app.websocket_burst_total_bytes" => app.websocket_burst_total_bytes,
    "app.memory_budget_bytes" => app.memory_budget_bytes,
    "app.websocket_backpressure_drop_policy" => app.websocket_backpressure_drop_policy,
    "app.ping_interval_seconds" => app.ping_interval,
    "app.pong_wait_seconds" => app.pong_wait,
    "app.write_timeout_seconds" => app.write_timeout,
    "app.websocket_compression_mode" => app.websocket_compression_mode,
    "app.websocket_compression_threshold" => app.websocket_compression_threshold,
    "app.max_message_bytes" => app.max_message_bytes,
    "app.client_messages_per_second" => app.client_messages_per_second,
    "app.client_message_burst" => app.client_message_burst,
    "app.client_bytes_per_second" => app.client_bytes_per_second,
    "app.max_connections" => app.max_connections,
    "app.close_on_token_expiry" => app.close_on_token_expiry,
    "app.redis_outage_policy" => app.redis_outage_policy,
    "app.gap_repair" => app.gap_repair,
    "resume.max_events" => resume.max_events,
    "resume.max_bytes" => resume.max_bytes,
    "resume.timeout_seconds" => resume.timeout,
    "resume.window_min_clients" => resume.window_min_clients,
    "resume.window_max_bytes" => resume.window_max_bytes,
    "rebalance.enabled" => rebalance.enabled,
    "app.grpc_client_forward_timeout_seconds" => app.grpc_client_forward_timeout,
    "app.forward_max_deliveries" => app.forward_max_deliveries,
    "app.forward_max_age_seconds" => app.forward_max_age,
    "app.forward_parked_share_percent" => app.forward_parked_share_percent,
    "app.nats_pull_batch" => app.nats_pull_batch,
    "app.shutdown_timeout_seconds" => app.shutdown_timeout,
    "adaptive_ttl.session_lock.enabled" => adaptive_ttl.session_lock.enabled,
    "adaptive_ttl.session_lock.min_ttl_seconds" => adaptive_ttl.session_lock.min_ttl,
    "adaptive_ttl.session_lock.max_ttl_seconds" => adaptive_ttl.session_lock.max_ttl,
    "adaptive_ttl.session_lock.activity_threshold_seconds" => adaptive_ttl.session_lock.activity_threshold,
    "adaptive_ttl.message_route.enabled" => adaptive_ttl.message_route.enabled,
    "adaptive_ttl.message_route.min_ttl_seconds" => adaptive_ttl.message_route.min_ttl,
    "adaptive_ttl.message_route.max_ttl_seconds" => adaptive_ttl.message_route.max_ttl,
    "adaptive_ttl.message_route.activity_threshold_seconds" => adaptive_ttl.message_route.activity_threshold,
    "telemetry.log_level" => telemetry.log_level,
}

/// Does a reload apply the key?
#[must_use]
pub fn is_reloadable(key: &str) -> bool {
    RELOADABLE.contains(&key)
}

/// What kind of value a key takes, by the kind of its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Switch,
    Whole,
    Number,
    List,
    Path,
}

impl Kind {
    /// The kind of a default; `None` for a section.
    pub(super) fn of(default: &Value) -> Option<Self> {
        match default {
            Value::String(..) | Value::Char(..) => Some(Self::Text),
            Value::Bool(..) => Some(Self::Switch),
            Value::Num(_, number) if number.to_f64().is_some() => Some(Self::Number),
            Value::Num(..) => Some(Self::Whole),
            Value::Array(..) => Some(Self::List),
            Value::Empty(..) => Some(Self::Path),
            Value::Dict(..) => None,
        }
    }

    /// Is the value of this kind?
    pub(super) fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.as_str().is_some(),
            Self::Switch => matches!(value, Value::Bool(..)),
            Self::Whole => value.to_u128().is_some(),
            Self::Number => matches!(value, Value::Num(..)),
            Self::List => value.as_array().is_some_and(|items| items.iter().all(|item| item.as_str().is_some())),
            Self::Path => matches!(value, Value::Empty(..)) || value.as_str().is_some(),
        }
    }

    /// What the value must be, for an error.
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Text => "must be a text (in YAML, put quotes around one that looks like a number)",
            Self::Switch => "must be true or false",
            Self::Whole => "must be a whole number, 0 or more",
            Self::Number => "must be a number",
            Self::List => "must be a list of texts (in the environment, separated by commas)",
            Self::Path => "must be a path or null",
        }
    }
}

/// The defaults as a tree.
///
/// # Errors
/// Only when the embedded file is broken, which a test excludes.
pub(super) fn defaults() -> Result<Dict, ConfigError> {
    Yaml::from_str(DEFAULTS).map_err(|error| broken_defaults(&error))
}

pub(super) fn broken_defaults(error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError { problems: vec![Problem::new("the defaults", format!("are broken: {error}"), None)] }
}

/// Every key with its default, by its path from the top.
pub(super) fn leaves(tree: &Dict) -> BTreeMap<String, &Value> {
    fn walk<'a>(tree: &'a Dict, above: &str, found: &mut BTreeMap<String, &'a Value>) {
        for (name, value) in tree {
            let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            match value {
                Value::Dict(_, below) => walk(below, &key, found),
                leaf => {
                    found.insert(key, leaf);
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(tree, "", &mut found);
    found
}

/// The environment variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value as Json;

    use super::*;
    use crate::config::{Secret, redact, testing};

    fn keys_of(tree: &Json, above: &str, found: &mut BTreeSet<String>) {
        for (name, value) in tree.as_object().unwrap() {
            let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            if value.is_object() { keys_of(value, &key, found) } else { assert!(found.insert(key)) }
        }
    }

    /// The keys of the file in its order, each with the comment right above it.
    fn commented() -> Vec<(String, String)> {
        let (mut path, mut comment, mut found) = (Vec::new(), String::new(), Vec::new());
        for line in DEFAULTS.lines() {
            let text = line.trim_start();
            if let Some(more) = text.strip_prefix('#') {
                comment.push_str(more);
                continue;
            }
            if let Some((name, _)) = text.split_once(':') {
                path.truncate((line.len() - text.len()) / 2);
                path.push(name);
                found.push((path.join("."), std::mem::take(&mut comment)));
            }
            comment.clear();
        }
        found
    }

    #[test]
    fn the_defaults_have_exactly_the_keys_of_the_structs() {
        let config: Config = testing::parse(DEFAULTS);
        let mut of_structs = BTreeSet::new();
        keys_of(&redact::tree(&config), "", &mut of_structs);
        let tree = defaults().unwrap();
        assert_eq!(leaves(&tree).into_keys().collect::<BTreeSet<_>>(), of_structs);
        // What is written there is what is read, so a misread unit would show.
        assert_eq!(redact::tree(&config), redact::tree(&tree));
    }

    #[test]
    fn every_key_is_explained_right_above_it() {
        let tree = defaults().unwrap();
        let commented = commented();
        assert!(leaves(&tree).keys().all(|key| commented.iter().any(|(name, _)| name == key)));
        for (key, comment) in commented {
            assert!(comment.len() > 5, "{key} has no comment");
        }
    }

    #[test]
    fn comments_say_when_a_change_takes_effect() {
        let tree = defaults().unwrap();
        let leaves = leaves(&tree);
        for (key, comment) in commented().into_iter().filter(|(key, _)| leaves.contains_key(key)) {
            let last = if is_reloadable(&key) { " Reload." } else { " Restart." };
            assert!(comment.ends_with(last), "{key}: {comment}");
        }
    }

    #[test]
    fn every_reloadable_key_exists() {
        let tree = defaults().unwrap();
        let leaves = leaves(&tree);
        assert_eq!(RELOADABLE.iter().collect::<BTreeSet<_>>().len(), RELOADABLE.len());
        for key in RELOADABLE {
            assert!(leaves.contains_key(*key), "{key}");
        }
    }

    #[test]
    fn every_secret_is_listed_as_one() {
        // Any text that the dump hides, once there is one, is a secret.
        let tree = defaults().unwrap();
        let texts = leaves(&tree).into_iter().filter(|(_, value)| value.as_str() == Some("")).map(|(key, _)| key);
        let hidden: BTreeSet<String> = texts
            .filter(|key| {
                let probe = figment::providers::Serialized::default(key, "probe");
                let figment = figment::Figment::from(Yaml::string(DEFAULTS)).merge(probe);
                let shown = redact::tree(&figment.extract::<Config>().unwrap());
                shown.pointer(&format!("/{}", key.replace('.', "/"))).unwrap() == "<redacted>"
            })
            .collect();
        let config: Config = testing::parse(DEFAULTS);
        assert_eq!(config.secrets().iter().map(|(key, _)| (*key).to_owned()).collect::<BTreeSet<_>>(), hidden);
        assert!(config.secrets().iter().all(|(_, secret)| **secret == Secret::default()));
    }

    #[test]
    fn variables_are_unambiguous() {
        let tree = defaults().unwrap();
        let leaves = leaves(&tree);
        assert_eq!(leaves.keys().map(|key| variable(key)).collect::<BTreeSet<_>>().len(), leaves.len());
        assert_eq!(variable("adaptive_ttl.message_route.min_ttl_seconds"), "DAISI_WS_ADAPTIVE_TTL_MESSAGE_ROUTE_MIN_TTL_SECONDS");
    }
}
