//! Who may import what. Rings that nothing checks decay, so this reads the sources and fails on a breach.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file, without comment lines and without its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Files of a folder that mention one of the words, as `file: word`.
fn breaches(folder: &str, banned: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in sources(&src().join(folder)) {
        let code = code(&path);
        for word in banned.iter().filter(|word| code.contains(**word)) {
            found.push(format!("{}: {word}", path.strip_prefix(src()).unwrap().display()));
        }
    }
    found
}

const OUTSIDE: &[&str] = &["axum::", "redis::", "bb8", "async_nats::", "tonic::", "hyper::", "hyper_util::"];

#[test]
fn the_domain_is_pure() {
    let inner = ["crate::application", "crate::adapters", "crate::config", "crate::metrics", "crate::clock", "crate::gateway"];
    let runtime = ["tokio::", "tracing::", "async ", "SystemTime::now", "Instant::now"];
    let banned: Vec<&str> = inner.iter().chain(&runtime).chain(OUTSIDE).copied().collect();
    assert_eq!(breaches("domain", &banned), [] as [String; 0]);
}

#[test]
fn the_application_sees_no_adapter_and_no_library_of_one() {
    let banned: Vec<&str> = ["crate::adapters", "crate::gateway", "crate::dev"].iter().chain(OUTSIDE).copied().collect();
    assert_eq!(breaches("application", &banned), [] as [String; 0]);
}

#[test]
fn an_adapter_never_sees_another_adapter() {
    let adapters = ["grpc", "http", "memory", "nats", "redis"];
    for adapter in adapters {
        let others: Vec<String> =
            adapters.iter().filter(|other| **other != adapter).map(|other| format!("adapters::{other}")).collect();
        let mut banned: Vec<&str> = others.iter().map(String::as_str).collect();
        banned.extend(["crate::gateway", "crate::dev"]);
        assert_eq!(breaches(&format!("adapters/{adapter}"), &banned), [] as [String; 0]);
    }
}

#[test]
fn only_the_composition_root_and_the_commands_know_adapters() {
    let allowed = ["adapters", "cli", "dev"];
    let stray: Vec<String> = sources(&src())
        .into_iter()
        .map(|path| path.strip_prefix(src()).unwrap().to_path_buf())
        .filter(|path| !allowed.iter().any(|folder| path.starts_with(folder)))
        .filter(|path| path != Path::new("gateway.rs") && path != Path::new("lib.rs"))
        .filter(|path| code(&src().join(path)).contains("adapters::"))
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(stray, [] as [String; 0]);
}

#[test]
fn every_wait_that_grows_is_a_backoff() {
    // By hand they had no jitter. A breaker's is no wait of ours: a probe a second runs beside it.
    let own = [src().join("runtime/backoff.rs"), src().join("domain/breaker.rs")];
    let mut found = Vec::new();
    for path in sources(&src()).into_iter().filter(|path| !own.contains(path)) {
        let flat: String = code(&path).split_whitespace().collect();
        let doubles = ["*2).min(", "*=2;", "saturating_mul(2).min(", "2_u32.pow(", "1<<doublings"];
        if flat.contains("Duration") && doubles.iter().any(|by_hand| flat.contains(by_hand)) {
            found.push(path);
        }
    }
    assert_eq!(found, [] as [PathBuf; 0]);
}
