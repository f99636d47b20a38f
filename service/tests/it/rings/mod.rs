//! Who may import what. Rings that nothing checks decay, so this parses the sources and fails on a breach.
//!
//! What stands in a crate of its own (`crates/`) is held by cargo: its manifest names no runtime and no adapter.

mod cheats;
mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use self::imports::{Names, Segments, circles};

/// The gateway's own crate.
const SERVICE: &str = "daisi_ws_service";

/// Libraries that only an adapter needs.
const OF_ADAPTERS: &[&str] = &[
    "axum",
    "redis",
    "bb8",
    "bb8_redis",
    "async_nats",
    "nkeys",
    "tonic",
    "tonic_health",
    "tonic_reflection",
    "hyper",
    "hyper_util",
    "prost",
    "daisi_ws_proto",
];

/// Modules that put others together: nothing that they put together may know them.
const OUTERMOST: &[&str] = &["gateway", "dev", "cli"];

/// What each use case may see of the others, and no more: so none sees itself through another. (docs: ARCHITECTURE.md, the map)
const USE_CASES: &[(&str, &[&str])] = &[
    ("auth", &[]),
    ("hub", &[]),
    ("fleet", &[]),
    ("wellness", &["fleet"]),
    ("routes", &["hub"]),
    ("forward", &["fleet", "hub", "wellness"]),
    ("replay", &["hub"]),
    ("admission", &["fleet", "hub", "replay", "routes"]),
    ("connection", &["admission", "hub", "replay"]),
    ("dispatch", &["fleet", "forward", "hub", "wellness"]),
    ("membership", &["fleet", "forward", "hub", "routes"]),
    ("rebalance", &["admission", "fleet", "hub", "wellness"]),
    ("reception", &["admission", "fleet", "hub", "wellness"]),
];

const ADAPTERS: &[&str] = &["grpc", "http", "memory", "nats", "redis"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn path(of: &[&str]) -> Segments {
    std::iter::once(SERVICE).chain(of.iter().copied()).map(str::to_owned).collect()
}

/// Does a path lead into a module, or to one above it, from which it could be had?
fn reaches(to: &[String], module: &[&str]) -> bool {
    let module = path(module);
    let common = to.len().min(module.len());
    to[..common] == module[..common]
}

/// What breaks a rule, as `module names path`.
fn breaches(names: &Names) -> Vec<String> {
    let mut found: BTreeSet<String> = names.hidden.clone();
    for named in &names.named {
        if !is_allowed(&named.from, &named.to) {
            found.insert(format!("{} names {}", named.from[1..].join("::"), named.to.join("::")));
        }
    }
    found.into_iter().collect()
}

fn is_allowed(from: &[String], to: &[String]) -> bool {
    let place: Vec<&str> = from[1..].iter().map(String::as_str).collect();
    let is_crate = |libraries: &[&str]| to.first().is_some_and(|first| libraries.contains(&first.as_str()));
    let outermost = || OUTERMOST.iter().any(|module| reaches(to, &[module]));
    match place[..] {
        ["application", use_case, ..] => {
            let allowed = USE_CASES.iter().find(|(name, _)| *name == use_case).map_or(&[][..], |(_, allowed)| allowed);
            let stray = |other: &str| other != use_case && !allowed.contains(&other) && reaches(to, &["application", other]);
            !is_crate(OF_ADAPTERS)
                && !reaches(to, &["adapters"])
                && !outermost()
                && !["pod", "drain", "shutdown"].iter().any(|above| reaches(to, &[above]))
                && !USE_CASES.iter().any(|(other, _)| stray(other))
        }
        ["application"]
        | ["ports", ..]
        | ["readiness", ..]
        | ["pod", ..]
        | ["drain", ..]
        | ["shutdown", ..]
        | ["runtime", ..] => !is_crate(OF_ADAPTERS) && !reaches(to, &["adapters"]) && !outermost(),
        ["adapters", adapter, ..] => {
            !ADAPTERS.iter().any(|other| *other != adapter && reaches(to, &["adapters", other]))
                && !outermost()
                && !["pod", "drain", "shutdown"].iter().any(|above| reaches(to, &[above]))
        }
        ["config", ..] | ["metrics", ..] | ["telemetry", ..] => {
            !reaches(to, &["adapters"]) && !reaches(to, &["application"]) && !outermost()
        }
        _ => true,
    }
}

fn service() -> Names {
    Names::of_crate(SERVICE, &root().join("service/src"))
}

#[test]
fn no_module_names_what_its_ring_must_not_know() {
    assert_eq!(breaches(&service()), [] as [String; 0]);
}

#[test]
fn every_folder_of_the_use_cases_has_its_rule_and_the_rules_have_no_circle() {
    let names = service();
    let folders: BTreeSet<&str> =
        names.modules.iter().filter(|m| m.len() == 3 && m[1] == "application").map(|m| m[2].as_str()).collect();
    assert_eq!(folders, USE_CASES.iter().map(|(name, _)| *name).collect());
    let rules: BTreeMap<Segments, BTreeSet<Segments>> =
        USE_CASES.iter().map(|(name, allowed)| (path(&[name]), allowed.iter().map(|other| path(&[other])).collect())).collect();
    assert_eq!(circles(&rules), [] as [BTreeSet<Segments>; 0]);
}

#[test]
fn no_two_files_need_each_other() {
    let crates =
        [(SERVICE, "service/src"), ("daisi_ws_domain", "crates/domain/src"), ("daisi_ws_websocket", "crates/websocket/src")];
    let mut found = Vec::new();
    for (name, src) in crates {
        let names = Names::of_crate(name, &root().join(src));
        found.extend(
            circles(&names.needs())
                .into_iter()
                .map(|circle| circle.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(" <-> ")),
        );
    }
    assert_eq!(found, [] as [String; 0]);
}

/// What a manifest's table of dependencies names.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let table = text.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let lines = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned()).collect()
}

#[test]
fn the_crates_of_the_inner_rings_name_no_runtime_and_no_adapter() {
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let domain = all(&["bytes", "itoa", "serde", "serde_json", "siphasher", "smallvec", "thiserror", "time"]);
    assert_eq!(dependencies("crates/domain/Cargo.toml"), domain);
    let websocket = all(&["bytes", "daisi-ws-domain", "flate2", "serde", "thiserror", "tokio", "tokio-tungstenite"]);
    assert_eq!(dependencies("crates/websocket/Cargo.toml"), websocket);
}

#[test]
fn every_wait_before_another_try_is_a_backoff() {
    // By hand they had no jitter: those that double, and those that are the same each time.
    let is_retry = |name: &str| ["RETRY", "AGAIN", "REGISTER", "ACCEPT", "BACKOFF"].iter().any(|word| name.contains(word));
    let mut found = Vec::new();
    for (module, text) in sources(&root().join("service/src")) {
        let flat: String = text.split_whitespace().collect();
        let doubles = ["*2).min(", "*=2;", "saturating_mul(2).min(", "2_u32.pow(", "1<<doublings"];
        let mut slept = flat.split("sleep(").skip(1).filter_map(|rest| rest.split_once(')')).map(|(time, _)| time);
        let is_fixed = slept.any(|time| is_retry(time) && time.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
        let grows = flat.contains("Duration") && doubles.iter().any(|by_hand| flat.contains(by_hand));
        if (is_fixed || grows) && !module.ends_with("runtime/backoff.rs") {
            found.push(module);
        }
    }
    assert_eq!(found, [] as [PathBuf; 0]);
}

#[test]
fn what_is_simulated_draws_walks_and_chooses_the_same_way_under_one_seed() {
    // Chance, hashes, the order of branches and the time must come from where a simulation decides them.
    let by_chance = ["rand::", "HashMap", "HashSet", "RandomState", "SystemTime", "thread::spawn", "spawn_blocking"];
    let folders =
        ["application", "adapters/memory", "pod", "pod.rs", "drain.rs", "shutdown.rs", "readiness.rs", "runtime/backoff.rs"];
    let mut found = Vec::new();
    for (file, text) in folders.iter().flat_map(|part| sources(&root().join("service/src").join(part))) {
        let unordered = text.split("select! {").skip(1).any(|branches| !branches.trim_start().starts_with("biased;"));
        let drawn = by_chance.iter().filter(|name| text.contains(**name)).map(|name| (file.clone(), *name));
        found.extend(drawn.chain(unordered.then(|| (file.clone(), "a select! that is not biased"))));
    }
    let is_test = |file: &Path| file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests");
    found.retain(|(file, _)| !is_test(file));
    assert_eq!(found, [] as [(PathBuf, &str); 0]);
}

/// Every Rust file below a folder, or the one file, without its comments and unit tests.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let inside = || fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in if folder.is_dir() { inside() } else { vec![folder.to_path_buf()] } {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            found.push((path, code.join("\n")));
        }
    }
    found
}
