//! Values from environment variables, and from the files that some of them name.

mod misspelt;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Tag, Value},
};

pub(super) use self::misspelt::{Misspelt, misspelt};
use super::{
    Secret,
    keys::{Kind, PREFIX, variable},
    problem::Problem,
};

/// One variable, read: a source of a single value that knows its name.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    key: String,
    variable: String,
    value: Value,
    /// The file that the value was read from.
    file: Option<PathBuf>,
}

impl Setting {
    /// The key of a secret that was read from a file, and the file.
    pub(super) fn secret_file(&self) -> Option<(&str, &Path)> {
        Some((&self.key, self.file.as_deref()?))
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(origin(&self.variable))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut tree = self.value.clone();
        for name in self.key.rsplit('.') {
            tree = Value::from(Map::from([(name, tree)]));
        }
        Ok(Map::from([(Profile::Default, tree.into_dict().unwrap_or_default())]))
    }
}

fn origin(variable: &str) -> String {
    format!("environment variable {variable}")
}

/// Reads the variables that name a key of `leaves`; those of no known section are ignored, what can't be read is a problem.
pub(super) fn read(
    environment: &BTreeMap<String, OsString>,
    leaves: &BTreeMap<String, &Value>,
    secrets: &[&str],
    problems: &mut Vec<Problem>,
) -> Vec<Setting> {
    let by_variable: BTreeMap<String, (&str, &Value)> =
        leaves.iter().map(|(key, default)| (variable(key), (key.as_str(), *default))).collect();
    let mut settings = Vec::new();
    for (name, raw) in environment {
        let read = match by_variable.get(name) {
            Some((key, default)) => direct(name, key, default, raw),
            None => match secret_file(name, &by_variable, secrets) {
                Some((key, of)) if environment.contains_key(of) => {
                    Err(Problem::new(key, format!("is set twice, by {of} and by {name}"), None))
                }
                Some((key, _)) => from_file(name, key, Path::new(raw)),
                None => match unknown(name, leaves) {
                    Some(problem) => Err(problem),
                    None => continue,
                },
            },
        };
        match read {
            Ok(setting) => settings.push(setting),
            Err(problem) => problems.push(problem),
        }
    }
    settings
}

fn direct(name: &str, key: &str, default: &Value, raw: &OsString) -> Result<Setting, Problem> {
    let Some(text) = raw.to_str() else { return Err(Problem::new(key, "must be UTF-8", Some(&origin(name)))) };
    let Some(kind) = Kind::of(default) else { return Err(Problem::new(key, "is a section", Some(&origin(name)))) };
    match parse(kind, text) {
        Some(value) => Ok(Setting { key: key.to_owned(), variable: name.to_owned(), value, file: None }),
        None => Err(Problem::new(key, kind.wanted(), Some(&origin(name)))),
    }
}

/// Reads by the kind of the default: a secret made of digits stays a text.
fn parse(kind: Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::Text | Kind::Path => Some(Value::from(text)),
        Kind::Switch => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Some(Value::Bool(Tag::Default, true)),
            "false" | "0" => Some(Value::Bool(Tag::Default, false)),
            _ => None,
        },
        Kind::Whole => text.trim().parse::<u64>().ok().map(Value::from),
        Kind::Number => text.trim().parse::<f64>().ok().map(Value::from),
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::from(items.map(Value::from).collect::<Vec<_>>()))
        }
    }
}

/// The secret that a `…_FILE` variable is for, and the variable that would set it directly.
fn secret_file<'a>(
    name: &'a str,
    by_variable: &BTreeMap<String, (&'a str, &Value)>,
    secrets: &[&str],
) -> Option<(&'a str, &'a str)> {
    let of = name.strip_suffix("_FILE")?;
    let (key, _) = by_variable.get(of)?;
    secrets.contains(key).then_some((*key, of))
}

fn from_file(name: &str, key: &str, path: &Path) -> Result<Setting, Problem> {
    match Secret::of_file(path) {
        Ok(secret) => Ok(Setting {
            key: key.to_owned(),
            variable: name.to_owned(),
            value: Value::from(secret.expose()),
            file: Some(path.to_owned()),
        }),
        Err(error) => {
            let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Err(Problem::new(key, format!("can't be read from {}: {reason}", path.display()), Some(&origin(name))))
        }
    }
}

/// A variable of a known section that is no key of it.
fn unknown(name: &str, leaves: &BTreeMap<String, &Value>) -> Option<Problem> {
    let rest = name.strip_prefix(PREFIX)?;
    let section = leaves.keys().filter_map(|key| key.split('.').next()).find(|section| {
        let section = section.to_uppercase();
        rest.strip_prefix(&section).is_some_and(|key| key.len() > 1 && key.starts_with('_'))
    })?;
    let key = format!("{section}.{}", rest[section.len() + 1..].to_lowercase());
    let hint = if is_service_link(&rest[section.len() + 1..]) {
        "is no key; Kubernetes may have made the variable for a Service of that name (set enableServiceLinks: false)"
    } else {
        "is no key"
    };
    Some(Problem::new(key, hint, Some(&origin(name))))
}

fn is_service_link(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{defaults, leaves};

    fn read_all(variables: &[(&str, &str)]) -> (Vec<Setting>, Vec<String>) {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        let (tree, mut problems) = (defaults().unwrap(), Vec::new());
        let settings = read(&environment, &leaves(&tree), &["auth.secret_token", "redis.password"], &mut problems);
        (settings, problems.iter().map(Problem::to_string).collect())
    }

    fn value(name: &str, text: &str) -> Value {
        let (settings, problems) = read_all(&[(name, text)]);
        assert_eq!(problems, Vec::<String>::new());
        settings.into_iter().next().unwrap().value
    }

    #[test]
    fn values_are_read_by_the_kind_of_the_default() {
        assert_eq!(value("DAISI_WS_AUTH_SECRET_TOKEN", "123456789012345678").as_str(), Some("123456789012345678"));
        assert_eq!(value("DAISI_WS_SERVER_POD_ID", "true").as_str(), Some("true"));
        assert_eq!(value("DAISI_WS_SERVER_HTTP_PORT", " 9000 ").to_u128(), Some(9000));
        assert_eq!(value("DAISI_WS_SERVER_ENABLE_REFLECTION", "True").to_bool(), Some(true));
        assert_eq!(value("DAISI_WS_TELEMETRY_SAMPLE_RATIO", "1").to_f64(), Some(1.0));
        assert_eq!(value("DAISI_WS_NATS_CREDENTIALS_FILE", "/run/nats.creds").as_str(), Some("/run/nats.creds"));
        let origins = value("DAISI_WS_SERVER_ALLOWED_ORIGINS", "https://a.example, https://b.example,");
        let origins: Vec<_> = origins.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect();
        assert_eq!(origins, ["https://a.example", "https://b.example"]);
    }

    #[test]
    fn variables_of_no_known_section_are_ignored() {
        let (settings, problems) = read_all(&[
            ("DAISI_WS_SERVICE_PORT", "tcp://10.0.0.1:80"),
            ("DAISI_WS_SERVICE_HOST", "10.0.0.1"),
            ("DAISI_WS_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("DAISI_WS_APPLE", "1"),
            ("DAISI_WS_APP", "1"),
            ("DAISI_WS_CONFIG", "/etc/gateway.yaml"),
            ("PATH", "/bin"),
        ]);
        assert!(settings.is_empty() && problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn an_unknown_key_of_a_known_section_is_named() {
        let (_, problems) = read_all(&[("DAISI_WS_ADAPTIVE_TTL_MIN", "1"), ("DAISI_WS_APP_PING_INTERVAL", "5")]);
        assert_eq!(
            problems,
            [
                "adaptive_ttl.min is no key (set by environment variable DAISI_WS_ADAPTIVE_TTL_MIN)",
                "app.ping_interval is no key (set by environment variable DAISI_WS_APP_PING_INTERVAL)",
            ]
        );
        let (_, problems) = read_all(&[("DAISI_WS_REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379")]);
        assert!(problems[0].contains("enableServiceLinks"), "{problems:?}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error_that_names_the_key() {
        for (name, value) in [
            ("DAISI_WS_APP_PING_INTERVAL_SECONDS", "20s"),
            ("DAISI_WS_APP_PING_INTERVAL_SECONDS", "-1"),
            ("DAISI_WS_APP_PING_INTERVAL_SECONDS", ""),
            ("DAISI_WS_APP_PING_INTERVAL_SECONDS", "1.5"),
        ] {
            let (_, problems) = read_all(&[(name, value)]);
            let expected =
                format!("app.ping_interval_seconds must be a whole number, 0 or more (set by environment variable {name})");
            assert_eq!(problems, [expected]);
        }
        let (_, problems) = read_all(&[("DAISI_WS_NATS_TLS", "maybe")]);
        assert_eq!(problems, ["nats.tls must be true or false (set by environment variable DAISI_WS_NATS_TLS)"]);
    }

    #[test]
    fn a_secret_is_read_from_a_file_without_its_final_newline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "12345\n\n").unwrap();
        assert_eq!(value("DAISI_WS_REDIS_PASSWORD_FILE", path.to_str().unwrap()).as_str(), Some("12345\n"));
    }

    #[test]
    fn a_secret_file_that_is_missing_or_set_twice_is_a_problem() {
        let (_, problems) = read_all(&[("DAISI_WS_AUTH_SECRET_TOKEN_FILE", "/no/such/file")]);
        assert!(problems[0].starts_with("auth.secret_token can't be read from /no/such/file: "), "{problems:?}");
        let (_, problems) =
            read_all(&[("DAISI_WS_AUTH_SECRET_TOKEN", "direct"), ("DAISI_WS_AUTH_SECRET_TOKEN_FILE", "/no/such/file")]);
        assert_eq!(
            problems,
            ["auth.secret_token is set twice, by DAISI_WS_AUTH_SECRET_TOKEN and by DAISI_WS_AUTH_SECRET_TOKEN_FILE"]
        );
        let (_, problems) = read_all(&[("DAISI_WS_SERVER_POD_ID_FILE", "/etc/hostname")]);
        assert!(problems[0].starts_with("server.pod_id_file is no key"), "only secrets come from files: {problems:?}");
    }
}
