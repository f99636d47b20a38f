//! The kinds of metric: how each is made, and how many series it can have.

use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

/// Buckets for latencies from half a millisecond to ten seconds; the targets (50, 100 and 200 ms) are bounds.
pub(super) const LATENCY: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The same for events, which may wait for a peer or a dependency as long as they are worth it (`app.forward_max_age_seconds`).
pub(super) const DELIVERY: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Buckets for the lifetime of a connection, from a second to a day.
pub(super) const LIFETIME: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// Buckets for how long clients are away, from a second to a day.
pub(super) const AGE: &[f64] = &[1.0, 10.0, 60.0, 120.0, 600.0, 3600.0, 86_400.0];
/// No histogram.
pub(super) const NONE: &[f64] = &[];

/// A label and its values; no values: the peers of the pod, the one open set.
pub(crate) type Label = (&'static str, &'static [&'static str]);

/// What is known of a metric before there is any.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its name, without the suffixes of a histogram's series.
    pub name: &'static str,
    /// Its labels.
    pub labels: &'static [Label],
    /// The bounds of its buckets; none, if it is no histogram.
    pub buckets: &'static [f64],
}

impl Spec {
    /// How many series it can have in a pod with so many peers.
    #[must_use]
    pub fn series(&self, peers: usize) -> usize {
        let combinations: usize =
            self.labels.iter().map(|(_, values)| if values.is_empty() { peers } else { values.len() }).product();
        // A histogram has its buckets, the one without bound, a sum and a count.
        let each = if self.buckets.is_empty() { 1 } else { self.buckets.len() + 3 };
        combinations * each
    }
}

/// A kind of metric that can be made from its options.
pub(super) trait Make: Sized {
    fn make(spec: &Spec, help: &str) -> prometheus::Result<Self>;

    /// Makes the series of these label values: a counter that begins at 0 shows its first increase, one that appears at 1 does
    /// not.
    fn touch(&self, _values: &[&str]) {}

    /// Makes every series whose label values are known beforehand.
    fn touch_all(&self, spec: &Spec) {
        let mut combinations: Vec<Vec<&str>> = vec![Vec::new()];
        for (_, values) in spec.labels {
            combinations = combinations
                .iter()
                .flat_map(|before| values.iter().map(move |value| before.iter().copied().chain([*value]).collect()))
                .collect();
        }
        combinations.iter().for_each(|values| self.touch(values));
    }
}

fn names(spec: &Spec) -> Vec<&'static str> {
    spec.labels.iter().map(|(name, _)| *name).collect()
}

macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl Make for $kind {
            fn make(spec: &Spec, help: &str) -> prometheus::Result<Self> {
                Self::new(spec.name, help)
            }
        }
    )*};
}

macro_rules! labelled {
    ($($kind:ty),*) => {$(
        impl Make for $kind {
            fn make(spec: &Spec, help: &str) -> prometheus::Result<Self> {
                Self::new(Opts::new(spec.name, help), &names(spec))
            }

            fn touch(&self, values: &[&str]) {
                let _ = self.with_label_values(values);
            }
        }
    )*};
}

plain!(Counter, Gauge, IntCounter, IntGauge);
labelled!(IntCounterVec, IntGaugeVec);

impl Make for Histogram {
    fn make(spec: &Spec, help: &str) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::new(spec.name, help).buckets(spec.buckets.to_vec()))
    }
}

impl Make for HistogramVec {
    fn make(spec: &Spec, help: &str) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::new(spec.name, help).buckets(spec.buckets.to_vec()), &names(spec))
    }

    fn touch(&self, values: &[&str]) {
        let _ = self.with_label_values(values);
    }
}
