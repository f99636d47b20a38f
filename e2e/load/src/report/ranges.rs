//! The table of `docs/performance.md`: what several runs measured, as ranges, from the JSON that each has written.

use std::{collections::BTreeMap, ffi::OsStr, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{
    budget::{self, BUDGETS, Limit},
    table::number,
};

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->";

/// Figures without a budget that a reader needs beside those that have one.
const BESIDE: &[(&str, &str)] = &[
    ("storm-resume", "time until all are ready"),
    ("storm-resume", "time until all are ready, without resume"),
    ("storm-resume", "p99 from connect to ready"),
    ("storm-resume", "p99 from connect to ready, without resume"),
    ("storm-resume", "pod CPU per connect"),
    ("storm-resume", "pod CPU per connect, without resume"),
    ("storm-resume", "NATS CPU per connect"),
    ("storm-resume", "NATS CPU per connect, without resume"),
    ("storm-resume-shared", "p99 from connect to ready"),
    ("storm-resume-shared", "p99 from connect to ready, without resume"),
    ("storm-resume-shared", "pod CPU per connect"),
    ("storm-resume-shared", "NATS CPU per connect"),
    ("quiet", "Redis commands"),
    ("quiet", "Redis CPU"),
    ("spread", "latency p50"),
    ("spread", "latency p95"),
    ("spread", "latency p99, floor on a durable"),
    ("forwarded", "latency p95"),
    ("take-over", "Redis commands per take-over"),
    ("take-over", "kills published per take-over"),
    ("slow", "latency p99, all read"),
    ("slow", "latency p99 of the others, some do not"),
];

/// The share of the cores that other programs may use before figures suffer.
const QUIET: f64 = 0.05;

/// A document that `run --json` wrote, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Run {
    setting: Setting,
    figures: Vec<Measured>,
    others: f64,
}

/// Runs are told apart by this; what they have in common stands below the table once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Setting {
    gateway: String,
    cores: usize,
    processor: String,
    kernel: String,
    redis: String,
    nats: String,
}

#[derive(Debug, Deserialize)]
struct Measured {
    scenario: String,
    name: String,
    unit: String,
    value: Option<f64>,
    floor: Option<f64>,
}

/// Reads all `*.json` of a folder and makes the table.
///
/// # Errors
/// When there is none, or one is no result of a run.
pub(crate) fn of_folder(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension() == Some(OsStr::new("json")));
    paths.sort();
    ensure!(!paths.is_empty(), "there are no results in {}", folder.display());
    let read = |path: &Path| -> Result<Run> {
        let text = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no result of a run", path.display()))
    };
    Ok(text(&paths.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?))
}

/// Puts a table between the marks of a document.
///
/// # Errors
/// When the document has no marks.
pub(crate) fn put_into(document: &str, table: &str) -> Result<String> {
    let Some((before, rest)) = document.split_once(BEGIN) else { bail!("the document has no line {}", BEGIN.trim_end()) };
    let Some((_, after)) = rest.split_once(END) else { bail!("the document has no line {END}") };
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn text(runs: &[Run]) -> String {
    let mut text =
        "| Scenario | Figure | Gateway | Floor | Times the floor | Budget | Kept |\n|---|---|---|---|---|---|---|\n".to_owned();
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for figure in runs.iter().flat_map(|run| &run.figures) {
        let key = (figure.scenario.as_str(), figure.name.as_str());
        if figure.scenario != "growth" && (limit(key).is_some() || BESIDE.contains(&key)) && !shown.contains(&key) {
            shown.push(key);
            let _ = writeln!(text, "{}", row(runs, key, &figure.unit));
        }
    }
    let mut settings: BTreeMap<&Setting, usize> = BTreeMap::new();
    runs.iter().for_each(|run| *settings.entry(&run.setting).or_default() += 1);
    let _ = writeln!(text, "\nLeast to most of {}:\n", count(runs.len(), "run"));
    for (Setting { gateway, cores, processor, kernel, redis, nats }, runs) in settings {
        let redis = redis.split(' ').find(|word| word.starts_with("v=")).map_or(redis.as_str(), |word| &word[2..]);
        let (nats, kernel) = (nats.trim_start_matches("nats-server: "), kernel.split('-').next().unwrap_or_default());
        let _ = writeln!(
            text,
            "- {}: {gateway}; {}, {processor}; Linux {kernel}; Redis {redis}, NATS {nats}",
            count(runs, "run"),
            count(*cores, "core"),
        );
    }
    let others = runs.iter().map(|run| run.others).fold(0.0, f64::max);
    let effect = if others > QUIET { ": **costs are higher for it, and latencies much**" } else { "" };
    let percent = number((others * 1000.0).round() / 10.0);
    let _ = writeln!(text, "\nOther programs used at most {percent} % of the cores in any run{effect}.");
    text
}

fn row(runs: &[Run], key: (&str, &str), unit: &str) -> String {
    let of_key = |run: &'_ Run| run.figures.iter().position(|figure| (figure.scenario.as_str(), figure.name.as_str()) == key);
    let figures: Vec<&Measured> = runs.iter().filter_map(|run| run.figures.get(of_key(run)?)).collect();
    let unit = match unit {
        "us" => " µs",
        "" => "",
        "% of a core" | "%" => " %",
        other => &format!(" {other}"),
    };
    let measured = |of: &dyn Fn(&Measured) -> Option<f64>| range(figures.iter().filter_map(|figure| of(figure)));
    let with_unit = |range: String| if range.is_empty() { range } else { format!("{range}{unit}") };
    let ratio = |figure: &Measured| Some(figure.value? / figure.floor.filter(|floor| *floor > 0.0)?);
    // By the budgets of now, which may be others than those of the run.
    let kept = |figure: &Measured| budget::keeps(limit(key)?, figure.value.unwrap_or(f64::NAN), figure.floor);
    let judged: Vec<bool> = figures.iter().filter_map(|figure| kept(figure)).collect();
    let kept = match judged.len() {
        0 => String::new(),
        all => format!("{} of {all}", judged.iter().filter(|kept| **kept).count()),
    };
    let budget = match limit(key) {
        Some(Limit::AtMost(bound)) => format!("≤ {}{unit}", number(bound)),
        Some(Limit::AtLeast(bound)) => format!("≥ {}{unit}", number(bound)),
        Some(Limit::TimesFloor(times)) => format!("≤ {} × floor", number(times)),
        None => String::new(),
    };
    let (gateway, floor) = (with_unit(measured(&|figure| figure.value)), with_unit(measured(&|figure| figure.floor)));
    format!("| {} | {} | {gateway} | {floor} | {} | {budget} | {kept} |", key.0, key.1, measured(&ratio))
}

fn limit((scenario, name): (&str, &str)) -> Option<Limit> {
    BUDGETS.iter().find(|budget| (budget.scenario, budget.name) == (scenario, name)).map(|budget| budget.limit)
}

/// The least and the most; one number if they read alike, nothing if there is none.
fn range(values: impl Iterator<Item = f64>) -> String {
    let (least, most) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
    let (least, most) = (number(least), number(most));
    match least.as_str() {
        "-" => String::new(),
        _ if least == most => least,
        _ => format!("{least}–{most}"),
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: f64, floor: f64) -> Run {
        serde_json::from_value(serde_json::json!({
            "setting": {
                "gateway": "daisi-ws-service 1", "cores": 2, "processor": "a CPU", "kernel": "6.1-7-amd64",
                "redis": "Redis server v=7.0.15 sha=0", "nats": "nats-server: v2.10.27",
            },
            "figures": [
                {"scenario": "fan-out", "name": "CPU per delivery", "unit": "us", "value": value, "floor": floor},
                {"scenario": "fan-out", "name": "client CPU per delivery", "unit": "us", "value": 1.0},
                {"scenario": "storm", "name": "refused", "unit": "", "value": 0.0},
            ],
            "others": 0.012,
        }))
        .unwrap()
    }

    #[test]
    fn a_row_has_the_least_and_the_most_of_all_runs_and_how_many_kept_the_budget() {
        let table = text(&[run(9.0, 9.0), run(10.0, 8.0)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[2], "| fan-out | CPU per delivery | 9–10 µs | 8–9 µs | 1–1.25 | ≤ 1.10 × floor | 1 of 2 |");
        assert_eq!(lines[3], "| storm | refused | 0 |  |  | ≤ 0 | 2 of 2 |");
        assert!(table.contains("2 runs: daisi-ws-service 1; 2 cores, a CPU; Linux 6.1; Redis 7.0.15, NATS v2.10.27"), "{table}");
        assert!(table.contains("at most 1.20 %"), "{table}");
    }

    #[test]
    fn a_table_replaces_what_is_between_the_marks_and_nothing_else() {
        let document = format!("before\n{BEGIN}old\n{END}\nafter\n");
        assert_eq!(put_into(&document, "new\n").unwrap(), format!("before\n{BEGIN}new\n{END}\nafter\n"));
        assert!(put_into("no marks", "new\n").is_err());
    }
}
