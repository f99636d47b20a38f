//! Adaptive time to live: long for what is in use, short for what is not (`adaptive_ttl` in the configuration).

use std::time::Duration;

/// The bounds of an adaptive time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtlRange {
    /// For what was idle longer than the threshold.
    pub min: Duration,
    /// For what was active within the threshold.
    pub max: Duration,
    /// How long something counts as active.
    pub activity_threshold: Duration,
}

impl TtlRange {
    /// The time to live of something idle for `idle`: the maximum while active, then falling linearly to the minimum over another
    /// threshold.
    #[must_use]
    pub fn for_idle(&self, idle: Duration) -> Duration {
        let over = idle.saturating_sub(self.activity_threshold);
        if over.is_zero() {
            return self.max;
        }
        if over >= self.activity_threshold {
            return self.min;
        }
        let share = over.as_secs_f64() / self.activity_threshold.as_secs_f64();
        self.max - self.max.saturating_sub(self.min).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_falls_from_max_to_min_as_activity_ages() {
        let s = Duration::from_secs;
        let range = TtlRange { min: s(300), max: s(900), activity_threshold: s(600) };
        for (idle, ttl) in [(0, 900), (600, 900), (900, 600), (1200, 300), (9000, 300)] {
            assert_eq!(range.for_idle(s(idle)), s(ttl), "{idle}");
        }
    }
}
