//! The commands.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::{
    plan::Plan,
    report::{Summary, picture},
    run::{Outcome, prepare, run},
    shrink::shrink,
    trace::first_difference,
};

/// Every so many seeds, one is run twice and both traces are compared.
const REPEATED: u64 = 10;
/// Plans that a shrinking tries at most.
const PATIENCE: u64 = 2000;

#[derive(Parser)]
#[command(name = "daisi-ws-simulation", about = "Runs fleets of the gateway under seeds, and checks what it promises")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds; ends at the first that breaks an invariant.
    Run(Run),
    /// Runs one seed, or a plan, and says what happens.
    Replay(Replay),
    /// Cuts the plan of a seed that breaks an invariant as small as it gets.
    Shrink(Shrink),
}

#[derive(Args)]
struct Run {
    /// How many.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs at a time; by default one a processor.
    #[arg(long)]
    threads: Option<usize>,
    /// Go on after a seed that breaks something.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Args)]
struct Replay {
    /// The seed.
    seed: u64,
    /// Print every call, frame and action.
    #[arg(long)]
    trace: bool,
    /// A plan in place of the seed's own.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Write a picture of the run here, as SVG.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// Print the plan, as JSON, and do not run it.
    #[arg(long)]
    show: bool,
}

#[derive(Args)]
struct Shrink {
    /// The seed.
    seed: u64,
    /// Write the plan here; by default it is printed.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    prepare();
    let done = match Cli::parse().command {
        Command::Run(run) => run_many(&run),
        Command::Replay(replay) => replay_one(&replay),
        Command::Shrink(shrink) => shrink_one(&shrink),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("daisi-ws-simulation: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line for people, who may have gone.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What threads share.
struct Work {
    next: AtomicU64,
    until: u64,
    keep_going: bool,
    stop: AtomicBool,
    found: Mutex<Vec<String>>,
    sum: Mutex<Summary>,
}

impl Work {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.until {
                return;
            }
            if let Err(error) = self.run_seed(seed) {
                self.found.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
                self.stop.fetch_or(!self.keep_going, Ordering::Relaxed);
            }
        }
    }

    fn run_seed(&self, seed: u64) -> Result<()> {
        let plan = Plan::of(seed);
        let outcome = run(&plan, false)?;
        let is_repeated = seed.is_multiple_of(REPEATED);
        let finished = {
            let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.add(&outcome);
            sum.repeated += u64::from(is_repeated);
            sum.runs
        };
        if std::io::stderr().is_terminal() && finished.is_multiple_of(20) {
            eprint!("\r{finished} runs ");
        }
        if let Some(breach) = outcome.breaches.first() {
            bail!(
                "seed {seed} breaks \"{}\" at {:?}: {}\n  replay it: cargo run -p daisi-ws-simulation -- replay {seed} --trace",
                breach.invariant,
                breach.at,
                breach.what
            );
        }
        if is_repeated {
            compare(&plan, outcome.hash)?;
        }
        Ok(())
    }
}

/// Runs a plan again: the trace must be the same.
fn compare(plan: &Plan, hash: u64) -> Result<()> {
    if run(plan, false)?.hash == hash {
        return Ok(());
    }
    let (a, b) = (run(plan, true)?, run(plan, true)?);
    match first_difference(&a.text, &b.text) {
        Some((line, a, b)) => bail!("seed {} is not the same twice: line {line} is\n  {a}\nand\n  {b}", plan.seed),
        None => bail!("seed {} is not the same twice, but was the next two times", plan.seed),
    }
}

fn run_many(options: &Run) -> Result<ExitCode> {
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let work = Work {
        next: AtomicU64::new(options.from),
        until: options.from + options.seeds,
        keep_going: options.keep_going,
        stop: AtomicBool::new(false),
        found: Mutex::default(),
        sum: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work.run());
        }
    });
    let sum = work.sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    say(&sum.to_string());
    let found = work.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.iter().for_each(|found| say(found));
    if found.is_empty() {
        say("no invariant is broken");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn plan_of(seed: u64, file: Option<&Path>) -> Result<Plan> {
    let Some(path) = file else { return Ok(Plan::of(seed)) };
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no plan", path.display()))
}

fn verdict(outcome: &Outcome) -> ExitCode {
    for breach in &outcome.breaches {
        say(&format!("\"{}\" is broken at {:?}: {}", breach.invariant, breach.at, breach.what));
    }
    if outcome.breaches.is_empty() {
        say("no invariant is broken");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn replay_one(options: &Replay) -> Result<ExitCode> {
    let plan = plan_of(options.seed, options.plan.as_deref())?;
    if options.show {
        say(&serde_json::to_string_pretty(&plan)?);
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = run(&plan, options.trace)?;
    outcome.text.iter().for_each(|line| say(line));
    if let Some(path) = &options.picture {
        std::fs::write(path, picture(&plan, &outcome)).with_context(|| format!("can't write {}", path.display()))?;
    }
    let mut sum = Summary::default();
    sum.add(&outcome);
    say(&format!("seed {}, {} pods, trace {:016x}\n{sum}", plan.seed, plan.slots, outcome.hash));
    Ok(verdict(&outcome))
}

fn shrink_one(options: &Shrink) -> Result<ExitCode> {
    let plan = Plan::of(options.seed);
    let first = run(&plan, false)?;
    let Some(breach) = first.breaches.first() else { bail!("seed {} breaks nothing", options.seed) };
    let mut breaks = |plan: &Plan| {
        let found = run(plan, false).map(|outcome| outcome.breaches).unwrap_or_default();
        found.first().is_some_and(|found| found.invariant == breach.invariant)
    };
    let shrunk = shrink(&plan, PATIENCE, &mut breaks);
    let text = serde_json::to_string_pretty(&shrunk.plan)?;
    eprintln!("{} of {} steps are left after {} runs", shrunk.plan.steps.len(), plan.steps.len(), shrunk.tried);
    match &options.out {
        Some(path) => std::fs::write(path, text + "\n").with_context(|| format!("can't write {}", path.display()))?,
        None => say(&text),
    }
    Ok(ExitCode::SUCCESS)
}
