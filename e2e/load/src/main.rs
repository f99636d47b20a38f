//! Measures pods of the gateway against the floor: the least that any server must do for the same sockets, in the same run and
//! under the same load.
//!
//! - `scenario`: what is measured. `conduct`: what scenarios are made of. `report`: the figures, their budgets, the table.
//! - `stage`: the servers, started and ended here. `floor`: the yardstick, a server of this program.
//! - `reads`: what it costs to read the stream again.
//! - `client`: the sockets, in processes of their own, and what came of events there. `publisher`: the events.
//! - `wire`, `stamp`, `stream`, `samples`, `clock`, `proc`: frames, identification, names, latencies, time, and what the kernel
//!   says of a process.

mod client;
mod clock;
mod conduct;
mod floor;
mod options;
mod proc;
mod publisher;
mod reads;
mod report;
mod samples;
mod scenario;
mod stage;
mod stamp;
mod stream;
mod wire;

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;

use conduct::conductor::Conductor;
use options::{Command, Options, Run};
use report::{
    budget::{self, Verdict},
    json, plot, ranges, table,
};

fn main() -> ExitCode {
    match obey(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("daisi-ws-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn obey(options: Options) -> Result<ExitCode> {
    proc::limits::raise_open_files()?;
    match options.command {
        Command::Floor { nats, listen, durable } => floor::run(nats, listen, durable)?,
        Command::Clients { threads } => client::process::run(threads)?,
        Command::Table { results, into } => show_ranges(&results, into.as_deref())?,
        Command::Reads(reads) => print(&runtime()?.block_on(reads::run(&reads))?),
        Command::Run(run) => return measure(*run),
    }
    Ok(ExitCode::SUCCESS)
}

/// One thread conducts and publishes: it shall take as little as possible of the cores that are measured.
fn measure(run: Run) -> Result<ExitCode> {
    ensure!(cfg!(target_os = "linux"), "what a process costs is read from /proc, which only Linux has");
    let (check, json, plot) = (run.check, run.json.clone(), run.plot.clone());
    let runtime = runtime()?;
    let conductor = Conductor::new(run)?;
    let results = runtime.block_on(Box::pin(proc::stop::unless_told(scenario::run::run(&conductor))))?;
    let setting = conductor.setting();
    print(&table::text(&results));
    if let Some(path) = json {
        write(&path, &json::text(&setting, &results)?)?;
    }
    if let Some(path) = plot {
        write(&path, &plot::svg(&setting, &results))?;
    }
    let missed = results.figures.iter().any(|figure| budget::verdict(figure) == Verdict::Missed);
    Ok(if check && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

/// Prints the table of several runs, or puts it into a document.
fn show_ranges(results: &Path, into: Option<&Path>) -> Result<()> {
    let table = ranges::of_folder(results)?;
    let Some(path) = into else {
        print(&table);
        return Ok(());
    };
    let document = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    write(path, &ranges::put_into(&document, &table)?)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn print(text: &str) {
    print!("{text}");
}
