//! A configuration file, then variables of the environment, a line each, behind a zero byte.

use std::{
    ffi::OsString,
    io::{Seek as _, Write as _},
    sync::{LazyLock, Mutex, PoisonError},
};

use daisi_ws_service::{
    adapters::redis::fuzzing as redis,
    config::{Config, Sources, fuzzing as config},
};
use tempfile::NamedTempFile;

use super::SECRETS;
use crate::{
    input::{split, text},
    must,
};

static FILE: LazyLock<Mutex<NamedTempFile>> = LazyLock::new(|| Mutex::new(must(NamedTempFile::new(), "a file")));

/// What the file and the environment give.
fn load(yaml: &[u8], environment: Vec<(OsString, OsString)>) -> Result<Config, Vec<(String, String)>> {
    let mut file = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    must(file.as_file().set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(yaml)), "the file");
    config::load(&Sources::new(Some(file.path().to_owned()), environment))
}

fn secrets() -> Vec<(OsString, OsString)> {
    SECRETS.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

pub(in super::super) fn check(input: &[u8]) {
    let [yaml, lines] = split(input);
    // Files of secrets, and other files of configuration, are this machine's.
    let named = |line: &str| line.split_once('=').map(|(name, value)| (format!("DAISI_WS_{name}"), value.to_owned()));
    let variables: Vec<_> = text(lines).lines().filter_map(named).take(16).collect();
    let variables = variables.into_iter().filter(|(name, _)| !name.ends_with("_FILE") && name != "DAISI_WS_CONFIG");
    let environment: Vec<_> = secrets().into_iter().chain(variables.map(|(name, value)| (name.into(), value.into()))).collect();
    match load(yaml, environment) {
        Ok(loaded) => {
            let dump = config::dump(&loaded);
            hides(&dump);
            // What is in force, written and loaded again, is in force.
            let again = load(dump.as_bytes(), secrets()).map(|again| config::dump(&again));
            assert_eq!(again.as_deref(), Ok(&*dump), "what is dumped loads otherwise");
            // What was checked can be read by who needs it.
            assert!(redis::address(&loaded.redis.address).is_some(), "{:?} passes for an address", loaded.redis.address);
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "nothing is wrong, and it does not load");
            assert!(problems.is_sorted_by(|(one, _), (other, _)| one <= other), "{problems:?}");
            problems.iter().for_each(|(_, told)| hides(told));
        }
    }
}

/// No good secret is shown, and nothing is endless.
fn hides(text: &str) {
    assert!(SECRETS.iter().all(|(_, secret)| !text.contains(secret)), "a secret is shown");
    assert!(text.len() <= 64 << 10, "a text of {} bytes", text.len());
}
