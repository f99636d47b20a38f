//! Helpers that turn counts into figures.

use anyhow::{Result, ensure};

use crate::{client::fleet::Outcome, report::Curve, samples::Samples, stage::servers::Servers};

/// Percentiles of the curves in the plot.
const PERCENTILES: [f64; 14] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99];

/// `amount` for each of so many.
#[expect(clippy::cast_precision_loss, reason = "counts have fewer digits than a float")]
pub(crate) fn each(amount: f64, count: u64) -> f64 {
    amount / count.max(1) as f64
}

/// One count by another.
#[expect(clippy::cast_precision_loss, reason = "counts have fewer digits than a float")]
pub(crate) fn ratio(count: u64, by: u64) -> f64 {
    each(count as f64, by)
}

/// The middle one; 0 if there are none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Nanoseconds between two times, as seconds.
#[expect(clippy::cast_precision_loss, reason = "a run has fewer nanoseconds than a float has digits")]
pub(crate) fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}

/// The percentiles of a latency.
pub(crate) fn curve(scenario: &'static str, server: &'static str, samples: &Samples) -> Curve {
    let points = PERCENTILES.iter().map(|percentile| (*percentile, samples.millis_at(percentile / 100.0))).collect();
    Curve { scenario, server, points }
}

/// Nothing may be lost or doubled, nor come out of order from one server (two that take events from the same stream may
/// interleave them): a figure of a server that does not deliver is none.
///
/// # Errors
/// When something was.
pub(crate) fn is_sound(scenario: &str, servers: &Servers, outcome: &Outcome, sockets: u64) -> Result<()> {
    let (counts, server) = (&outcome.counts, servers.name());
    let faults = counts.faults;
    ensure!(
        faults.lost == 0 && faults.doubled == 0 && counts.gaps == 0,
        "{scenario}: the {server} lost {} events, doubled {}, and announced {} gaps",
        faults.lost,
        faults.doubled,
        counts.gaps
    );
    ensure!(
        faults.disordered == 0 || servers.addresses().len() > 1,
        "{scenario}: the {server} delivered {} events out of order",
        faults.disordered
    );
    ensure!(
        counts.open == sockets && counts.refused.is_empty() && counts.closed.is_empty(),
        "{scenario}: of {sockets} sockets at the {server}, {} are open; refused: {:?}; closed: {:?}",
        counts.open,
        counts.refused,
        counts.closed
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 200.0]).to_bits(), 3_f64.to_bits());
        assert_eq!(median(Vec::new()).to_bits(), 0_f64.to_bits());
    }

    #[test]
    fn times_become_seconds_and_do_not_run_backwards() {
        assert_eq!(seconds(1_000_000_000, 2_500_000_000).to_bits(), 1.5_f64.to_bits());
        assert_eq!(seconds(2, 1).to_bits(), 0_f64.to_bits());
    }
}
