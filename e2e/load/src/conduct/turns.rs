//! What was measured at one side, turn after turn. Sides take turns because a machine is not as fast at one minute as it is at
//! the next; of the turns the middle one counts, so that what else the machine did in some of them disturbs little.

use super::figures::median;
use crate::samples::Samples;

/// The turns so far.
#[derive(Debug)]
pub(crate) struct Turns<T>(Vec<T>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Turns<T> {
    /// One more.
    pub(crate) fn add(&mut self, turn: T) {
        self.0.push(turn);
    }

    /// Were there none?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[T] {
        &self.0
    }

    /// What it was in the middle; 0 if there were none.
    pub(crate) fn middle(&self, of: impl Fn(&T) -> f64) -> f64 {
        median(self.0.iter().map(of).collect())
    }

    /// What it was in the middle of the turns that know it; none if no turn does.
    pub(crate) fn middle_of_some(&self, of: impl Fn(&T) -> Option<f64>) -> Option<f64> {
        let known: Vec<f64> = self.0.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| median(known))
    }

    /// The latencies of all turns together; none if there were no turns.
    pub(crate) fn samples(&self, of: impl Fn(&T) -> &Samples) -> Option<Samples> {
        self.0.iter().map(|turn| of(turn).clone()).reduce(|mut all, turn| {
            all.add(&turn.buckets());
            all
        })
    }

    /// The latency that the share `quantile` of all turns' does not exceed, in milliseconds; 0 if there were none.
    pub(crate) fn millis_at(&self, quantile: f64, of: impl Fn(&T) -> &Samples) -> f64 {
        self.samples(of).map_or(0.0, |samples| samples.millis_at(quantile))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns<T>(of: impl IntoIterator<Item = T>) -> Turns<T> {
        Turns(of.into_iter().collect())
    }

    #[test]
    fn a_turn_that_was_disturbed_does_not_count() {
        assert!((turns([3.0, 90.0, 2.0]).middle(|turn| *turn) - 3.0).abs() < 1e-9);
        assert_eq!(turns([None, Some(1.0)]).middle_of_some(|turn| *turn), Some(1.0));
        assert_eq!(turns([None, None]).middle_of_some(|turn| *turn), None);
    }

    #[test]
    fn latencies_of_all_turns_count() {
        let samples = [1_000_000, 3_000_000].map(|nanos| {
            let mut samples = Samples::new().unwrap();
            samples.record(nanos);
            samples
        });
        let turns = turns(samples);
        assert!((turns.millis_at(0.5, |samples| samples) - 1.0).abs() < 0.01);
        assert!((turns.millis_at(1.0, |samples| samples) - 3.0).abs() < 0.01);
    }
}
