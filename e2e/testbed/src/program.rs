//! Where the programs of servers are.

use std::path::{Path, PathBuf};

/// Redis: what `REDIS_SERVER` names, else what is found as below.
#[must_use]
pub fn redis() -> PathBuf {
    find("REDIS_SERVER", "redis-server")
}

/// NATS: what `NATS_SERVER` names, else what is found as below.
#[must_use]
pub fn nats() -> PathBuf {
    find("NATS_SERVER", "nats-server")
}

/// What the variable names, else what `.ci/tools.sh` has fetched, else the one on PATH.
fn find(variable: &str, name: &str) -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin").join(name);
    match std::env::var_os(variable) {
        Some(program) => program.into(),
        None if fetched.exists() => fetched,
        None => name.into(),
    }
}
