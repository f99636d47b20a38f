//! What operators write, for `service/fuzz`: what is in force, as it may be shown, and what was wrong.

use super::{Config, Secrets, Sources, redact};

/// What is in force, as YAML without secrets.
#[must_use]
pub fn dump(config: &Config) -> String {
    redact::dump(config)
}

/// Loads as the start does.
///
/// # Errors
/// With all that is wrong: each key, and the text about it.
pub fn load(sources: &Sources) -> Result<Config, Vec<(String, String)>> {
    let problems = match sources.load(Secrets::Required) {
        Ok(config) => return Ok(config),
        Err(error) => error.problems,
    };
    Err(problems.into_iter().map(|problem| (problem.key.clone(), problem.to_string())).collect())
}
