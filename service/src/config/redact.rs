//! What may be shown of a configuration: everything but secrets and the user information of URLs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::{Config, secret::REDACTED};

/// The value of a section as it may be shown.
pub(super) fn tree(section: &impl Serialize) -> Value {
    let mut tree = plain_tree(section);
    hide_userinfo(&mut tree);
    tree
}

/// The value of a section with its secrets hidden but URLs as they are: for comparing, not for showing.
pub(super) fn plain_tree(section: &impl Serialize) -> Value {
    // Serialising to a tree fails only for maps with keys that are no text, and there are none.
    serde_json::to_value(section).unwrap_or(Value::Null)
}

/// Everything that is in force, as YAML with keys in alphabetical order. Secrets and passwords in URLs read `<redacted>`.
#[must_use]
pub(crate) fn dump(config: &Config) -> String {
    let mut yaml = String::new();
    write_block(&mut yaml, &tree(config), 0);
    yaml
}

fn write_block(yaml: &mut String, block: &Value, depth: usize) {
    let Value::Object(entries) = block else { return };
    for (key, value) in entries {
        let indent = "  ".repeat(depth);
        // Writing to a String can't fail.
        if value.is_object() {
            let _ = writeln!(yaml, "{indent}{key}:");
            write_block(yaml, value, depth + 1);
        } else {
            // JSON's scalars and lists are YAML's too.
            let _ = writeln!(yaml, "{indent}{key}: {value}");
        }
    }
}

fn hide_userinfo(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('@') => *text = without_userinfo(text),
        Value::Array(items) => items.iter_mut().for_each(hide_userinfo),
        Value::Object(entries) => entries.values_mut().for_each(hide_userinfo),
        _ => {}
    }
}

/// The URLs (separated by commas) with what stands before the host's `@` hidden.
///
/// A password may itself have a `@`, a `/` or a comma in it, so all up to the last `@` goes: hiding a host beats showing a
/// password.
#[must_use]
pub(crate) fn without_userinfo(urls: &str) -> String {
    let Some((userinfo, host)) = urls.rsplit_once('@') else { return urls.to_owned() };
    let scheme = userinfo.find("://").map_or("", |end| &userinfo[..end + 3]);
    format!("{scheme}{REDACTED}@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, testing};

    #[test]
    fn user_information_of_urls_is_hidden() {
        for (url, shown) in [
            ("nats://nats:4222", "nats://nats:4222"),
            ("nats://joe:pa@ss@nats:4222", "nats://<redacted>@nats:4222"),
            ("nats://joe:a,b/c@nats:4222", "nats://<redacted>@nats:4222"),
            ("joe:pass@nats:4222,nats-2:4222", "<redacted>@nats:4222,nats-2:4222"),
            ("nats://a:b@one:1,tls://c:d@two:2", "nats://<redacted>@two:2"),
        ] {
            assert_eq!(without_userinfo(url), shown);
        }
    }

    #[test]
    fn the_dump_reads_back_as_the_configuration_but_for_its_secrets() {
        let config = testing::config();
        let mut read: Config = testing::parse(&dump(&config));
        assert_ne!(read, config);
        read.auth = config.auth.clone();
        assert_eq!(read, config);
    }

    #[test]
    fn no_secret_is_in_the_dump_or_in_debug() {
        let mut config = testing::config();
        config.nats.password = Secret::new("natssecretpassword");
        config.nats.token = Secret::new("natssecrettoken");
        config.redis.password = Secret::new("redissecretpassword");
        config.nats.url = "nats://joe:urlsecretpassword@nats:4222".to_owned();
        config.redis.address = "redis://joe:addresssecret@redis:6379".to_owned();
        config.telemetry.otlp_endpoint = "http://joe:otlpsecretpassword@collector:4317".to_owned();
        let shown = format!("{}{config:?}{config:#?}{:?}", dump(&config), config.nats);
        for secret in ["urlsecretpassword", "otlpsecretpassword", "addresssecret"] {
            assert!(!shown.contains(secret), "{secret}");
        }
        for (key, secret) in config.secrets() {
            assert!(!secret.is_empty() && !shown.contains(secret.expose()), "{key}");
        }
        assert!(dump(&config).contains("  secret_token: \"<redacted>\"\n"));
    }
}
