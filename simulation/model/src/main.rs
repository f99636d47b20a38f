//! Checks the model of the session locks and prints what came of it: properties, sizes, for a mutant the run that finds it out.
#![expect(clippy::print_stdout, reason = "what was found is what the program is for")]

use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};
use daisi_ws_lock_model::{
    model::{LockModel, Policy},
    mutant::Mutant,
    report::{Checked, check, find},
};

/// Faults of the largest world, unless said otherwise: a minute or so.
const FAULTS: u8 = 1;
/// Faults that it takes for every mutant to be found out.
const MUTANT_FAULTS: u8 = 2;

/// Checks the model of the session locks in all its states.
#[derive(Debug, Parser)]
struct Options {
    /// Worlds with up to so many faults in a run; by default one, and two where mutants are looked for.
    #[arg(long)]
    faults: Option<u8>,
    /// Only worlds with just this many.
    #[arg(long)]
    just: Option<u8>,
    /// Sockets of the key.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    sockets: u8,
    /// Only with this policy.
    #[arg(long)]
    policy: Option<Policy>,
    /// Looks for a run that finds this mutant out, and prints it.
    #[arg(long, conflicts_with_all = ["policy", "just", "mutants"])]
    mutant: Option<Mutant>,
    /// Looks for each mutant, and prints a table.
    #[arg(long, conflicts_with_all = ["policy", "just"])]
    mutants: bool,
    /// Threads of the check.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let is_good = match options.mutant {
        Some(mutant) => look_for(mutant, options.faults.unwrap_or(MUTANT_FAULTS)),
        None if options.mutants => {
            println!("| Mutant | Sockets | Faults | Policy | Steps | Broken |\n|---|---|---|---|---|---|");
            Mutant::value_variants().iter().filter(|mutant| !row(**mutant, options.faults.unwrap_or(MUTANT_FAULTS))).count() == 0
        }
        None => check_all(&options),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check_all(options: &Options) -> bool {
    let mut is_good = true;
    let faults = options.just.map_or(0..=options.faults.unwrap_or(FAULTS), |just| just..=just);
    for policy in
        [Policy::Strict, Policy::Available].into_iter().filter(|policy| options.policy.is_none_or(|only| only == *policy))
    {
        for faults in faults.clone() {
            let model = LockModel { policy, sockets: options.sockets, faults, mutant: None };
            println!("policy {}, {} sockets, faults up to {faults}", name_of(policy), options.sockets);
            let checked = check(model, options.threads);
            print(&checked);
            is_good &= checked.is_good();
        }
    }
    is_good
}

fn print(checked: &Checked) {
    for verdict in &checked.verdicts {
        let word = match (verdict.is_always, verdict.is_met) {
            (true, true) => "holds ",
            (true, false) => "BROKEN",
            (false, true) => "occurs",
            (false, false) => "NEVER ",
        };
        println!("  {word}  {}", verdict.name);
    }
    let Checked { states, steps, depth, took, .. } = checked;
    println!("  {states} states, {steps} steps, depth {depth}, {:.1} s\n", took.as_secs_f64());
    if let Some((property, story)) = &checked.counterexample {
        println!("BROKEN: {property}\n{story}");
    }
}

fn look_for(mutant: Mutant, faults: u8) -> bool {
    println!("{}: {}", mutant.name(), mutant.says());
    let Some((model, Checked { counterexample: Some((property, story)), .. })) = find(mutant, faults) else {
        println!("not found with up to {faults} faults");
        return false;
    };
    let LockModel { sockets, faults, policy, .. } = model;
    println!("policy {}, {sockets} sockets, {faults} faults; broken: {property}\n{story}", name_of(policy));
    true
}

fn row(mutant: Mutant, faults: u8) -> bool {
    let Some((model, Checked { counterexample: Some((property, story)), .. })) = find(mutant, faults) else {
        println!("| `{}` | | | | | not found |", mutant.name());
        return false;
    };
    let steps = story.lines().count().saturating_sub(1);
    let LockModel { sockets, faults, policy, .. } = model;
    println!("| `{}` | {sockets} | {faults} | {} | {steps} | {property} |", mutant.name(), name_of(policy));
    true
}

fn name_of(policy: Policy) -> String {
    policy.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
