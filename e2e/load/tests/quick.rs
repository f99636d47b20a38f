//! A rehearsal of every scenario, on a real Redis, a real NATS and pods of the real program: everything is delivered, and every
//! figure is one.
#![expect(clippy::expect_used, reason = "a test that fails has to say where")]

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// All scenarios, in runs that are beside each other: much of a run is waiting.
const RUNS: [&[&str]; 3] = [
    &["connect", "idle", "fan-out", "burst", "storm", "spread", "forwarded"],
    &["quiet", "take-over", "slow"],
    &["storm-resume", "storm-resume-shared", "growth"],
];
/// Figures that are 0 when all is well, and those that a rehearsal is too short for.
const MAY_BE_ZERO: [&str; 9] = [
    "refused",
    "refused, without resume",
    "not resumed",
    "kills published per take-over",
    "latency p95 added by forwarding",
    "slow sockets that were told of a gap",
    "user CPU per delivery",
    "kernel CPU per delivery",
    "memory per socket",
];

/// On a machine that does much else, reading the stream again takes its time.
const PATIENCE: &str = "DAISI_WS_RESUME_TIMEOUT_SECONDS=30";

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The gateway: named by DAISI_WS_SERVICE, or beside this test, and built there if need be.
fn service() -> PathBuf {
    if let Some(named) = std::env::var_os("DAISI_WS_SERVICE") {
        return named.into();
    }
    let service = Path::new(env!("CARGO_BIN_EXE_daisi-ws-load")).with_file_name("daisi-ws-service");
    if !service.exists() {
        let built =
            Command::new(env!("CARGO")).current_dir(root()).args(["build", "--locked", "-p", "daisi-ws-service"]).status();
        assert!(built.is_ok_and(|built| built.success()), "the gateway can't be built");
    }
    assert!(service.exists(), "{} is not there: name the gateway with DAISI_WS_SERVICE", service.display());
    service
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program was built with the test")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daisi-ws-load"));
    command.arg("run").args(arguments).arg("--service").arg(service());
    // As the suites of the gateway find it.
    let fetched = root().join("target/tools/bin/nats-server");
    if std::env::var_os("NATS_SERVER").is_none() && fetched.exists() {
        command.env("NATS_SERVER", fetched);
    }
    command
}

/// The parent of a process that has not ended.
fn parent(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // `pid (name) state parent ...`, and a name may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if fields.next()? == "Z" { None } else { fields.next()?.parse().ok() }
}

fn children(of: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent(*id) == Some(of)).collect()
}

fn parsed(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the run wrote it")).expect("it is JSON")
}

#[test]
fn a_rehearsal_loses_nothing_and_every_scenario_gives_plausible_figures() {
    let documents = thread::scope(|scope| {
        let runs = RUNS.map(|scenarios| scope.spawn(|| rehearsed(scenarios)));
        runs.map(|run| run.join().expect("it says why"))
    });
    let notes: Vec<_> = documents.iter().map(|document| &document["notes"]).collect();
    let figures: Vec<&Value> = documents.iter().flat_map(|document| document["figures"].as_array().unwrap()).collect();
    for figure in &figures {
        let (name, value) = (figure["name"].as_str().unwrap(), figure["value"].as_f64());
        let value = value.unwrap_or_else(|| panic!("{figure} is no number"));
        assert!(value > 0.0 || MAY_BE_ZERO.contains(&name), "{figure}");
    }
    let value = |scenario: &str, name: &str| {
        let found = figures.iter().find(|figure| figure["scenario"] == scenario && figure["name"] == name);
        found.and_then(|figure| figure["value"].as_f64()).unwrap_or_else(|| panic!("{scenario} has no {name}"))
    };
    assert!(value("storm", "refused") < 0.5, "{notes:?}");
    for storm in ["storm-resume", "storm-resume-shared"] {
        // Who is told nothing of it was sent exactly what it had missed, or the run ends.
        for nobody in ["refused", "refused, without resume", "not resumed"] {
            assert!(value(storm, nobody) < 0.5, "{storm}: {nobody}: {notes:?}");
        }
    }
    assert!(value("forwarded", "events forwarded") > 99.0);
    assert!(value("take-over", "owners asked by a call") > 0.0);
    assert!(value("spread", "latency p50") <= value("spread", "latency p99"));
    assert!(value("spread", "rate") > 500.0);
    // The floor stands beside the gateway wherever both do the same.
    for scenario in ["fan-out", "burst", "spread", "take-over"] {
        let of_scenario = || figures.iter().filter(|figure| figure["scenario"] == scenario);
        assert!(of_scenario().any(|figure| figure["floor"].as_f64().is_some_and(|floor| floor > 0.0)), "{scenario}");
    }
}

/// The document of a rehearsal of these scenarios.
fn rehearsed(scenarios: &[&str]) -> Value {
    let folder = TempDir::new().expect("a folder can be made");
    let (json, plot) = (folder.path().join("figures.json"), folder.path().join("figures.svg"));
    let (json_text, plot_text) = (json.display().to_string(), plot.display().to_string());
    let how = ["--quick", "--json", &json_text, "--plot", &plot_text, "--pod-env", PATIENCE];
    let output = run(&[scenarios, &how].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    // Whatever is lost, doubled, refused or closed ends a run with an error.
    assert!(output.status.success(), "{said}\nis .ci/test or .ci/tools.sh needed, which bring the servers?");
    let document = parsed(&json);
    let figures = document["figures"].as_array().expect("it has figures");
    let measured: BTreeSet<&str> = figures.iter().filter_map(|figure| figure["scenario"].as_str()).collect();
    assert_eq!(measured, scenarios.iter().copied().collect());
    assert!(document["setting"]["cores"].as_u64().expect("it is a number") > 0);
    assert!(std::fs::read_to_string(plot).expect("the run drew it").starts_with("<svg"));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(scenarios.iter().all(|scenario| table.contains(scenario)), "{table}");
    document
}

#[test]
fn a_rehearsal_leaves_no_scenario_out() {
    let help = Command::new(env!("CARGO_BIN_EXE_daisi-ws-load")).args(["run", "--help"]).output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("it is text");
    let offered = help.lines().filter_map(|line| line.trim().strip_prefix("- ")?.split_once(':')).map(|(scenario, _)| scenario);
    let offered: BTreeSet<&str> = offered.filter(|scenario| *scenario != "all").collect();
    assert_eq!(offered, RUNS.iter().flat_map(|scenarios| scenarios.iter().copied()).collect());
}

#[test]
fn a_missed_budget_fails_the_run_only_when_it_is_checked() {
    // No pod opens a socket for nothing, and the budget of a delivery is that of an optimised build.
    let arguments = ["connect", "idle", "fan-out", "--quick", "--sockets", "20", "--idle-seconds", "1", "--no-floor"];
    let unchecked = run(&arguments);
    assert!(unchecked.status.success(), "{}", String::from_utf8_lossy(&unchecked.stderr));
    let folder = TempDir::new().unwrap();
    let json = folder.path().join("figures.json");
    let json_text = json.display().to_string();
    let checked = run(&[&arguments[..], &["--check", "--json", &json_text]].concat());
    let document = parsed(&json);
    let missed = document["figures"].as_array().unwrap().iter().any(|figure| figure["budget"]["kept"] == false);
    assert_eq!(checked.status.success(), !missed, "{document}");
}

#[test]
fn another_program_is_measured_in_turns_and_its_figures_stand_beside_the_first() {
    let (folder, other) = (TempDir::new().unwrap(), service().display().to_string());
    let json = folder.path().join("figures.json").display().to_string();
    let how = ["--quick", "--sockets", "20", "--no-floor", "--beside", &other, "--json", &json];
    let output = run(&[&["fan-out"], &how[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document = parsed(Path::new(&json));
    let of_delivery = |figure: &&Value| figure["name"] == "CPU per delivery";
    let figure = document["figures"].as_array().unwrap().iter().find(of_delivery).expect("it is measured");
    assert!(figure["beside"].as_f64().is_some_and(|beside| beside > 0.0), "{figure}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("times the other program's"));
}

#[test]
fn a_gateway_that_is_not_there_is_an_error_that_names_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_daisi-ws-load"))
        .args(["run", "connect", "--service", "/nowhere/daisi-ws-service"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/daisi-ws-service"));
}

#[tokio::test]
async fn a_run_that_is_told_to_end_ends_what_it_has_started() {
    let mut running = command(&["idle", "--quick", "--no-floor", "--sockets", "20", "--idle-seconds", "600"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built with the test");
    let said = BufReader::new(running.stderr.take().expect("it is piped"));
    let mut lines = said.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("idle for")), "it has ended");
    let started = children(running.id());
    // Redis, NATS, the gateway and the clients.
    assert_eq!(started.len(), 4);
    let id = i32::try_from(running.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    assert!(!running.wait().unwrap().success());
    assert!(lines.any(|line| line.contains("told to end")));
    let gone = async {
        while started.iter().any(|id| parent(*id).is_some()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("some are left");
}

#[test]
fn every_way_to_read_the_stream_again_is_answered() {
    let sizes = ["--events", "2000", "--subjects", "50", "--rounds", "20", "--at-once", "100"];
    let output = Command::new(env!("CARGO_BIN_EXE_daisi-ws-load")).arg("reads").args(sizes).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).expect("it is text");
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| leader") || line.starts_with("| direct")).collect();
    assert_eq!(rows.len(), 10, "{table}");
    assert!(rows.iter().all(|row| row.ends_with("| 0 |")), "{table}");
    let of = |what: &str| rows.iter().find(|row| row.contains(what)).expect("it is a way").split('|').nth(2).map(str::trim);
    assert_eq!(
        (of("leader, next of a subject, none there"), of("leader, next of a subject, 1 missed")),
        (Some("0.0"), Some("1.0"))
    );
}
