//! Times that something took.

use std::time::Duration;

/// All samples of a span.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The longest; nothing took no time.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    /// The time that so many of a thousand did not exceed.
    #[must_use]
    pub fn per_mille(&self, share: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * share / 1000).min(last)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.per_mille(990), Duration::ZERO);
        (1..=200).for_each(|n| samples.add(Duration::from_millis(n)));
        assert_eq!(samples.per_mille(500), Duration::from_millis(101));
        assert_eq!(samples.per_mille(990), Duration::from_millis(199));
        assert_eq!(samples.max(), Duration::from_millis(200));
    }
}
