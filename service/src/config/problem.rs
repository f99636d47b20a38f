//! What is wrong with a configuration, said by key.

use std::fmt;

/// One thing that is wrong. Neither field has a secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in `app.ping_interval_seconds`; where there is none, the file.
    pub key: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// The file or environment variable it came from, unless it is the default.
    pub origin: Option<String>,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, reason: impl Into<String>, origin: Option<&str>) -> Self {
        Self { key: key.into(), reason: reason.into(), origin: origin.map(str::to_owned) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.reason)?;
        match &self.origin {
            Some(origin) => write!(f, " (set by {origin})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not valid: {}", in_one_line(.problems))]
pub struct ConfigError {
    /// In the order of the keys.
    pub problems: Vec<Problem>,
}

fn in_one_line(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_every_key_and_where_it_was_set() {
        let problems = vec![
            Problem::new("app.max_connections", "must be at least 1", Some("environment variable DAISI_WS_APP_MAX_CONNECTIONS")),
            Problem::new("auth.secret_token", "is missing", None),
        ];
        assert_eq!(
            ConfigError { problems }.to_string(),
            "the configuration is not valid: app.max_connections must be at least 1 (set by environment variable \
             DAISI_WS_APP_MAX_CONNECTIONS); auth.secret_token is missing"
        );
    }
}
