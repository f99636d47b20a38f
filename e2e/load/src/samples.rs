//! Latencies: counted in a histogram of three digits, sent between processes as its filled buckets.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A minute; what took longer is counted as this.
const LONGEST: u64 = 60_000_000_000;
const SHORTEST: u64 = 1_000;
const DIGITS: u8 = 3;

/// Latencies in nanoseconds, between a microsecond and a minute.
#[derive(Debug, Clone)]
pub(crate) struct Samples(Histogram<u64>);

/// The filled buckets of [`Samples`]: value and count.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Buckets(Vec<(u64, u64)>);

impl Samples {
    /// None yet.
    ///
    /// # Errors
    /// Never; the bounds are good ones.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS)?))
    }

    /// Adds one.
    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.clamp(SHORTEST, LONGEST));
    }

    /// Adds all of another's.
    pub(crate) fn add(&mut self, buckets: &Buckets) {
        for (value, count) in &buckets.0 {
            self.0.saturating_record_n((*value).clamp(SHORTEST, LONGEST), *count);
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    /// For another process.
    pub(crate) fn buckets(&self) -> Buckets {
        Buckets(self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    /// The latency that the share `quantile` of them does not exceed, in milliseconds; 0 if there are none.
    pub(crate) fn millis_at(&self, quantile: f64) -> f64 {
        millis(self.0.value_at_quantile(quantile))
    }
}

/// Nanoseconds as milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a latency has fewer digits than a float")]
pub(crate) fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_survive_the_way_to_another_process() {
        let (mut here, mut there) = (Samples::new().unwrap(), Samples::new().unwrap());
        (1..=1000).for_each(|n| here.record(n * 1_000_000));
        there.add(&serde_json::from_str(&serde_json::to_string(&here.buckets()).unwrap()).unwrap());
        assert_eq!(there.0.len(), 1000);
        for quantile in [0.5, 0.95, 0.99] {
            let (there, exact) = (there.millis_at(quantile), quantile * 1000.0);
            assert!((there / exact - 1.0).abs() < 0.002, "{there} for {exact}");
        }
    }

    #[test]
    fn what_is_out_of_range_counts_as_its_bound() {
        let mut samples = Samples::new().unwrap();
        samples.record(0);
        samples.record(u64::MAX);
        assert_eq!(samples.0.len(), 2);
        assert!(samples.millis_at(1.0) >= 60_000.0 && samples.millis_at(0.5) < 0.002);
        samples.clear();
        assert!(samples.0.is_empty() && samples.millis_at(1.0) < 0.001);
    }
}
