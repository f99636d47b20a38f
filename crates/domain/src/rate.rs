//! A token bucket: a steady rate, and a burst on top.

use std::time::{Duration, Instant};

/// The longest that a claim is put off.
const MAX_WAIT: Duration = Duration::from_secs(60);

const SECOND: u64 = 1_000_000_000;

/// So many a second in the long run, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    rate: u32,
    burst: u32,
}

impl Pace {
    /// A rate of 0 counts as 1: what never came again could not be waited for.
    #[must_use]
    pub fn new(rate: u32, burst: u32) -> Self {
        Self { rate: rate.max(1), burst }
    }

    /// How long it takes until so many have come, in nanoseconds.
    fn time_of(self, count: u32) -> u64 {
        u64::from(count) * SECOND / u64::from(self.rate)
    }
}

/// What was taken of a burst and has not come again, as the time until it has: eight bytes a client, as pace and time are kept
/// elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Debt(u64);

impl Debt {
    /// So much time has passed.
    pub fn wait(&mut self, passed: Duration) {
        self.0 = self.0.saturating_sub(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes so many; false, and nothing is taken, when they are more than is left.
    pub fn spend(&mut self, cost: u32, pace: Pace) -> bool {
        let debt = self.0.saturating_add(pace.time_of(cost));
        let has_enough = debt <= pace.time_of(pace.burst);
        if has_enough {
            self.0 = debt;
        }
        has_enough
    }

    /// Takes one in any case; how long it is until it has come.
    fn claim(&mut self, pace: Pace) -> Duration {
        self.0 = self.0.saturating_add(pace.time_of(1));
        Duration::from_nanos(self.0.saturating_sub(pace.time_of(pace.burst))).min(MAX_WAIT)
    }
}

/// Allows `rate` messages a second in the long run and `burst` at once.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    pace: Pace,
    debt: Debt,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket of `burst`, which fills again at `rate` a second.
    #[must_use]
    pub fn new(rate: u32, burst: u32, now: Instant) -> Self {
        Self { pace: Pace::new(rate, burst), debt: Debt::default(), at: now }
    }

    /// Takes one; false when none is left.
    pub fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.debt.spend(1, self.pace)
    }

    /// Takes one in any case; how long it is until it has come, for anyone who waits for that.
    pub fn claim(&mut self, now: Instant) -> Duration {
        self.refill(now);
        self.debt.claim(self.pace)
    }

    fn refill(&mut self, now: Instant) {
        self.debt.wait(now.saturating_duration_since(self.at));
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let start = crate::a_moment();
        let mut bucket = TokenBucket::new(20, 40, start);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 40);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 10);
    }

    #[test]
    fn what_costs_more_than_is_left_takes_nothing() {
        let (pace, mut debt) = (Pace::new(5, 10), Debt::default());
        assert!(debt.spend(8, pace) && !debt.spend(3, pace) && debt.spend(2, pace) && !debt.spend(1, pace));
    }

    #[test]
    fn what_comes_in_the_smallest_parts_is_not_less() {
        let (pace, mut debt) = (Pace::new(3, 1_000_000), Debt::default());
        assert!(debt.spend(1_000_000, pace));
        for _ in 0..1_000_000 {
            debt.wait(Duration::from_micros(1));
        }
        assert!(debt.spend(3, pace) && !debt.spend(1, pace));
    }

    #[test]
    fn claims_are_put_off_to_the_rate() {
        let start = crate::a_moment();
        let mut bucket = TokenBucket::new(5, 2, start);
        let waits = [0; 5].map(|_| bucket.claim(start).as_millis());
        assert_eq!(waits, [0, 0, 200, 400, 600]);
    }
}
