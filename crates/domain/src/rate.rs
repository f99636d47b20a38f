//! A token bucket: a steady rate, and a burst on top.

use std::time::{Duration, Instant};

/// The longest that a claim is put off.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Allows `rate` messages a second in the long run and `burst` at once.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: f64,
    burst: f64,
    level: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: u32, burst: u32, now: Instant) -> Self {
        Self { rate: f64::from(rate), burst: f64::from(burst), level: f64::from(burst), filled_at: now }
    }

    /// Takes one; false when none is left.
    pub fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.spend(1)
    }

    /// Puts in what has come since the last time.
    pub fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.level = (self.level + passed * self.rate).min(self.burst);
        self.filled_at = now;
    }

    /// Takes so many of what was there at the last refill; false, and nothing is taken, when they are more than is left.
    pub fn spend(&mut self, cost: u32) -> bool {
        let cost = f64::from(cost);
        if self.level < cost {
            return false;
        }
        self.level -= cost;
        true
    }

    /// Takes one in any case; how long it is until it has come, for whoever waits for that.
    pub fn claim(&mut self, now: Instant) -> Duration {
        self.refill(now);
        self.level -= 1.0;
        Duration::from_secs_f64((-self.level / self.rate).clamp(0.0, MAX_WAIT.as_secs_f64()))
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
        let start = crate::a_moment();
        let mut bucket = TokenBucket::new(5, 10, start);
        assert!(bucket.spend(8) && !bucket.spend(3) && bucket.spend(2) && !bucket.spend(1));
    }

    #[test]
    fn claims_are_put_off_to_the_rate() {
        let start = crate::a_moment();
        let mut bucket = TokenBucket::new(5, 2, start);
        let waits = [0; 5].map(|_| bucket.claim(start).as_millis());
        assert_eq!(waits, [0, 0, 200, 400, 600]);
    }
}
