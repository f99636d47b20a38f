//! A run: every scenario that is wanted, one after another.

use anyhow::Result;

use super::{growth, own, quiet, resume, shared, slow, take_over};
use crate::{conduct::conductor::Conductor, options::Scenario, proc::machine::Machine, report::Results};

/// The scenarios of one set of sockets.
const SHARED: [Scenario; 5] = [Scenario::Connect, Scenario::Idle, Scenario::FanOut, Scenario::Burst, Scenario::Storm];

/// The share of the cores that others may use before the reader is told.
const NOTEWORTHY: f64 = 0.05;

/// Measures everything that is wanted.
///
/// # Errors
/// When a server fails, or does not deliver.
pub(crate) async fn run(conductor: &Conductor) -> Result<Results> {
    let mut results = Results::default();
    let before = Machine::now()?;
    if SHARED.iter().any(|scenario| conductor.wants(*scenario)) {
        results.add(shared::trials::measure(conductor).await?);
    }
    if conductor.wants(Scenario::Spread) || conductor.wants(Scenario::Forwarded) {
        results.add(Box::pin(own::trials::measure(conductor)).await?);
    }
    if conductor.wants(Scenario::StormResume) || conductor.wants(Scenario::StormResumeShared) {
        results.add(Box::pin(resume::trials::measure(conductor)).await?);
    }
    if conductor.wants(Scenario::Quiet) {
        results.add(Box::pin(quiet::measure(conductor)).await?);
    }
    if conductor.wants(Scenario::TakeOver) {
        results.add(take_over::measure(conductor).await?);
    }
    if conductor.wants(Scenario::Slow) {
        results.add(slow::measure(conductor).await?);
    }
    if conductor.wants_growth() {
        results.add(growth::measure(conductor).await?);
    }
    let cores = u32::try_from(conductor.client_threads()).unwrap_or(1);
    results.others = Machine::now()?.others_since(&before, cores);
    // Servers that were there before are others, too.
    if conductor.starts_pods() && results.others > NOTEWORTHY {
        results.notes.push(format!(
            "Other programs used {:.0} % of the cores meanwhile: costs are higher for it, and latencies much.",
            results.others * 100.0
        ));
    }
    Ok(results)
}
