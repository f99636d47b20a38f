//! Attacks a gateway's program from outside and prints what its users felt of it: a row of a table for each attack.
//!
//! Needs nats-server and redis-server: `eval "$(.ci/tools.sh --env)"`. All of it stays on the loopback network.
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use daisi_ws_attack::{
    catalogue::{ATTACKS, Attack},
    run::{attack::run, plan::Plan},
    strangers::perform::perform,
    table,
};
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use tokio::runtime;

/// Strangers leave the machine to the gateway when both want it.
const STRANGERS_NICE: i32 = 5;

/// Attacks a gateway's program and prints a row of a table for each attack.
#[derive(Debug, Parser)]
struct Options {
    /// The gateway's program.
    #[arg(long, env = "DAISI_WS_BINARY", default_value = "target/release/daisi-ws-service")]
    binary: PathBuf,
    /// How long each attack lasts.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long is measured before it.
    #[arg(long, default_value_t = 5)]
    before: u64,
    /// Pods of the fleet; the first is attacked.
    #[arg(long, default_value_t = 2)]
    pods: usize,
    /// A variable of the pods, as in `DAISI_WS_APP_MAX_CONNECTIONS=20000`.
    #[arg(long = "set")]
    set: Vec<String>,
    /// Appends each row to this file, too.
    #[arg(long)]
    table: Option<PathBuf>,
    /// Attacks, or `each` for one after another, or `list`.
    #[arg(default_value = "all")]
    attacks: Vec<String>,
}

fn main() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("the limit on open files can't be raised")?;
    if std::env::args().nth(1).as_deref() == Some("perform") {
        return be_strangers();
    }
    let options = Options::parse();
    if options.attacks.iter().any(|name| name == "list") {
        for attack in ATTACKS {
            println!("{:22} {}", attack.name, attack.says);
        }
        return Ok(());
    }
    runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(attack(options))
}

/// A process of strangers: its order comes on stdin, its counts go to stdout.
fn be_strangers() -> Result<()> {
    nice(STRANGERS_NICE)?;
    let mut order = String::new();
    std::io::stdin().read_to_string(&mut order)?;
    let counts = runtime::Builder::new_current_thread().enable_all().build()?.block_on(perform(serde_json::from_str(&order)?))?;
    serde_json::to_writer(std::io::stdout(), &counts)?;
    Ok(())
}

async fn attack(options: Options) -> Result<()> {
    let chosen = chosen(&options.attacks)?;
    let set = options.set.iter().map(|pair| {
        let (name, value) = pair.split_once('=').with_context(|| format!("{pair} is no variable"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    let plan = Plan {
        binary: options.binary,
        strangers: std::env::current_exe()?,
        pods: options.pods,
        before: Duration::from_secs(options.before),
        during: Duration::from_secs(options.seconds),
        set: set.collect::<Result<_>>()?,
    };
    let new = options.table.as_ref().is_none_or(|table| !table.exists());
    let mut file = options.table.map(|table| std::fs::OpenOptions::new().create(true).append(true).open(table)).transpose()?;
    let mut say = |text: &str| -> Result<()> {
        print!("{text}");
        if let Some(file) = &mut file {
            file.write_all(text.as_bytes())?;
        }
        Ok(())
    };
    if new {
        say(&table::head())?;
    }
    for attack in chosen {
        match run(&plan, attack).await {
            Ok(row) => say(&table::line(&row))?,
            Err(error) => say(&format!(
                "| {}: {} | not measured: {} |\n",
                attack.name,
                attack.says,
                format!("{error:#}").replace('\n', " ")
            ))?,
        }
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Attack>> {
    if names.iter().any(|name| name == "each") {
        return Ok(ATTACKS.iter().collect());
    }
    names
        .iter()
        .map(|name| Attack::named(name).with_context(|| format!("there is no attack {name}; `list` names them")))
        .collect()
}
