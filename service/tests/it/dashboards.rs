//! Rules, dashboards and the runbook, against what the binary really exports.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use daisi_ws_service::{
    config::Yaml,
    metrics::{PROCESS, SPECS},
};
use figment::{Figment, providers::Format as _};
use serde_json::Value;

/// Labels that Prometheus adds, or that rules make.
const OUTSIDE_LABELS: &[&str] = &["namespace", "job", "instance", "le", "severity", "alertname", "alertstate"];

fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

fn rules(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(dashboards().join("prometheus").join(file)).unwrap();
    let value: Value = Figment::from(Yaml::string(&text)).extract().unwrap();
    value["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Every string under a key of this name.
fn strings(value: &Value, key: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| match value {
            Value::String(text) if name == key => into.push(text.clone()),
            _ => strings(value, key, into),
        }),
        Value::Array(list) => list.iter().for_each(|value| strings(value, key, into)),
        _ => {}
    }
}

fn boards() -> Vec<(String, Value)> {
    let files = fs::read_dir(dashboards().join("grafana")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.display().to_string(), serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())).collect()
}

/// Where, and what is asked there.
fn expressions() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for file in ["recording.yaml", "alerts.yaml"] {
        all.extend(rules(file).iter().map(|rule| (file.to_owned(), rule["expr"].as_str().unwrap().to_owned())));
    }
    for (file, board) in boards() {
        let mut found = Vec::new();
        strings(&board, "expr", &mut found);
        strings(&board["templating"], "query", &mut found);
        assert!(!found.is_empty(), "{file}");
        all.extend(found.into_iter().map(|expr| (file.clone(), expr)));
    }
    all
}

/// The words of an expression that name series, each with its selector, if it has one.
fn series(expr: &str) -> Vec<(String, String)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(start) = rest.find(is_word) {
        let tail = &rest[start..];
        let end = tail.find(|c| !is_word(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        let selector = after.strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |(selector, _)| selector);
        if ["dws_", "process_", "job:", "instance:"].iter().any(|prefix| word.starts_with(prefix)) {
            found.push((word.to_owned(), selector.to_owned()));
        }
        rest = after;
    }
    found
}

/// The metric behind the name of a series.
fn base(name: &str) -> &str {
    let histogram =
        |suffix| name.strip_suffix(suffix).filter(|base| SPECS.iter().any(|s| s.name == *base && !s.buckets.is_empty()));
    ["_bucket", "_sum", "_count"].into_iter().find_map(histogram).unwrap_or(name)
}

#[test]
fn every_metric_and_label_in_a_rule_or_panel_is_one_that_the_binary_has() {
    let recorded: BTreeSet<String> = rules("recording.yaml").iter().map(|r| r["record"].as_str().unwrap().to_owned()).collect();
    for (file, expr) in expressions() {
        for (name, selector) in series(&expr) {
            if name.contains(':') {
                assert!(recorded.contains(&name), "{file}: {name} is not recorded");
                continue;
            }
            let spec = SPECS.iter().find(|spec| spec.name == base(&name));
            assert!(spec.is_some() || PROCESS.contains(&name.as_str()), "{file}: there is no metric {name}");
            for matcher in selector.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
                let (label, value) = matcher.split_once(['=', '!']).unwrap();
                let value = value.trim_matches(['=', '~', '"']);
                let values = spec.and_then(|spec| spec.labels.iter().find(|(name, _)| *name == label)).map(|(_, values)| *values);
                assert!(values.is_some() || OUTSIDE_LABELS.contains(&label), "{file}: {name} has no label {label}");
                for value in value.split('|').filter(|value| !value.contains(['$', '.', '*'])) {
                    let known = values.is_none_or(|values| values.is_empty() || values.contains(&value));
                    assert!(known, "{file}: {label} of {name} is never {value}");
                }
            }
        }
        for grouping in expr.split("by (").skip(1) {
            for label in grouping.split(')').next().unwrap().split(',').map(str::trim) {
                let ours = SPECS.iter().any(|spec| spec.labels.iter().any(|(name, _)| *name == label));
                assert!(ours || OUTSIDE_LABELS.contains(&label), "{file}: nothing has a label {label}: {expr}");
            }
        }
    }
}

/// The variants of an enum that the sources of a folder name.
fn variants_named(folder: &str, of: &str) -> BTreeSet<String> {
    fn read(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, text);
            } else {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder), &mut text);
    let before = format!("{of}::");
    let named = text.split(&before).skip(1);
    named.map(|rest| rest.chars().take_while(char::is_ascii_alphanumeric).collect()).collect()
}

fn values_of(metric: &str, label: &str) -> BTreeSet<String> {
    let spec = SPECS.iter().find(|spec| spec.name == metric).unwrap();
    let (_, values) = spec.labels.iter().find(|(name, _)| *name == label).unwrap();
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn every_command_to_redis_has_its_series_from_the_start() {
    // Whatever is counted is one of the enum, of which the series are made: here, that none is declared that no call has.
    let named = variants_named("adapters/redis", "RedisCommand");
    let declared = values_of("dws_redis_command_seconds", "command");
    assert!(declared.len() > 8 && named.len() == declared.len(), "calls {named:?}, series {declared:?}");
}

#[test]
fn every_alert_says_how_bad_what_and_where_to_read_on_and_the_runbook_has_it() {
    let runbook = fs::read_to_string(dashboards().join("runbook.md")).unwrap();
    let sections: Vec<&str> = runbook.split("\n## ").skip(1).collect();
    let alerts = rules("alerts.yaml");
    for rule in &alerts {
        let name = rule["alert"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(rule["annotations"]["description"].as_str().unwrap().contains("$value"), "{name}");
        assert!(!rule["annotations"]["summary"].as_str().unwrap().is_empty(), "{name}");
        let link = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(link.ends_with(&format!("/dashboards/runbook.md#{}", name.to_lowercase())), "{link}");
        let section = sections.iter().find(|section| section.lines().next() == Some(name));
        let section = section.unwrap_or_else(|| panic!("the runbook has no section {name}"));
        for part in ["**Meaning.**", "**First look.**", "**Likely causes.**", "**What to do.**"] {
            assert!(section.contains(part), "{name} has no {part}");
        }
    }
    let stale: Vec<_> =
        sections.iter().filter_map(|section| section.lines().next()).filter(|title| title.starts_with("Dws")).collect();
    assert_eq!(stale.len(), alerts.len(), "sections without an alert: {stale:?}");
}

#[test]
fn every_alert_has_a_firing_and_a_silent_case() {
    let folder = dashboards().join("prometheus/tests");
    let cases: String = fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    for rule in rules("alerts.yaml") {
        let name = rule["alert"].as_str().unwrap();
        for case in ["fires", "is silent"] {
            assert!(cases.contains(&format!("name: {name} {case}")), "{name} {case}");
        }
    }
}

#[test]
fn dashboards_have_variables_links_annotations_and_units() {
    let boards = boards();
    assert_eq!(boards.len(), 4);
    let uids: BTreeSet<&str> = boards.iter().map(|(_, board)| board["uid"].as_str().unwrap()).collect();
    for (file, board) in &boards {
        let names: Vec<&str> =
            board["templating"]["list"].as_array().unwrap().iter().filter_map(|v| v["name"].as_str()).collect();
        assert_eq!(names, ["datasource", "job", "pod", "type", "interval"], "{file}");
        assert_eq!(board["annotations"]["list"].as_array().unwrap().len(), 2, "{file}");
        let links = board["links"].to_string();
        let others = uids.iter().filter(|uid| **uid != board["uid"].as_str().unwrap());
        assert!(
            others.clone().count() == 3 && others.clone().all(|uid| links.contains(uid)) && links.contains("runbook.md"),
            "{file}"
        );
        for panel in board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {} has no unit", panel["title"]);
        }
    }
}
