//! What it costs to read the stream again by subject, as a client that resumes makes a pod do: one read after another, and many at
//! once, each beside what the server spent on it.

mod ask;
mod fill;
mod kinds;

use anyhow::{Context as _, Result};
use async_nats::Client;
use daisi_ws_testbed::{nats, server::Server};

use self::{ask::Outcome, kinds::Kind};
use crate::{options::Reads, proc::cpu};

/// What the store may take of the disk: ten million events and more.
const STORE: &str = "16G";

/// Starts a server, fills a stream, reads it in all ways, and returns the table.
///
/// # Errors
/// When the server does not start or takes no events.
pub(crate) async fn run(options: &Reads) -> Result<String> {
    let folder = match &options.folder {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .context("no folder for the server's files")?;
    let (address, server) = nats::start(folder.path(), STORE).await?;
    let client = async_nats::connect(format!("nats://{address}")).await.context("NATS does not answer")?;
    let table = measure(options, &client, &server).await;
    server.end().await?;
    table
}

async fn measure(options: &Reads, client: &Client, server: &Server) -> Result<String> {
    let version = client.server_info().version;
    tell(&format!("filling a stream of NATS {version}: {} events on {} subjects", options.events, options.subjects));
    fill::fill(client, options.events, options.subjects).await?;
    let mut table = header(options, &version);
    for kind in Kind::ALL {
        tell(kind.name);
        let one_by_one = asked(options, client, server, kind, options.rounds, 1).await?;
        let at_once = asked(options, client, server, kind, options.at_once, options.at_once).await?;
        table.push_str(&row(kind, &one_by_one, &at_once));
    }
    Ok(table)
}

/// Asks `count` times, `window` at a time.
async fn asked(options: &Reads, client: &Client, server: &Server, kind: &Kind, count: u64, window: u64) -> Result<Measured> {
    let before = cpu::of(server.pid()?)?;
    let outcome = ask::ask(client, kind, (options.events, options.subjects), count, window).await?;
    let spent = cpu::of(server.pid()?)? - before;
    Ok(Measured { outcome, micros: spent.micros() })
}

struct Measured {
    outcome: Outcome,
    /// CPU of the server.
    micros: f64,
}

impl Measured {
    #[expect(clippy::cast_precision_loss, reason = "there are fewer reads than a float has digits")]
    fn micros_a_read(&self) -> f64 {
        self.micros / self.outcome.answered.max(1) as f64
    }
}

fn header(options: &Reads, version: &str) -> String {
    format!(
        "NATS {version}: {} events on {} subjects; {} reads one by one, {} at once\n\n\
         | Read | Events a read | CPU, µs | p50, ms | p99, ms | At once: CPU, µs | p99, ms | All after, s | Without an answer |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        options.events, options.subjects, options.rounds, options.at_once
    )
}

fn row(kind: &Kind, one_by_one: &Measured, at_once: &Measured) -> String {
    let (each, all) = (&one_by_one.outcome, &at_once.outcome);
    format!(
        "| {} | {:.1} | {:.0} | {:.3} | {:.3} | {:.0} | {:.0} | {:.2} | {} |\n",
        kind.name,
        each.events_a_read(),
        one_by_one.micros_a_read(),
        each.latency.millis_at(0.5),
        each.latency.millis_at(0.99),
        at_once.micros_a_read(),
        all.latency.millis_at(0.99),
        all.took.as_secs_f64(),
        each.unanswered + all.unanswered,
    )
}

#[expect(clippy::print_stderr, reason = "progress is for who waits")]
fn tell(what: &str) {
    eprintln!("... {what}");
}
