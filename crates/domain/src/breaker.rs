//! A circuit breaker per peer, as a state machine that is told the time.
//!
//! Closed until a number of failures in a row; then open for a while that doubles with each failed probe, up to a cap; then one
//! probe at a time. Any success closes it.

use std::time::{Duration, Instant};

/// The cap of the open time, as a multiple of the configured one.
const MAX_OPEN_FACTOR: u32 = 8;

/// What the breaker says to a call that is about to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The call may be made, beside others.
    Allow,
    /// Go on, as the only call: its result decides.
    Probe,
    /// Don't call before this time.
    Refuse {
        /// When the next probe is due; `None` while a probe is under way.
        until: Option<Instant>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, factor: u32 },
    Probing { factor: u32 },
}

/// The breaker of one peer.
#[derive(Debug)]
pub struct Breaker {
    threshold: u32,
    open_for: Duration,
    state: State,
}

impl Breaker {
    /// A closed breaker that opens after `threshold` failures in a row, for `open_for` at first.
    #[must_use]
    pub fn new(threshold: u32, open_for: Duration) -> Self {
        Self { threshold: threshold.max(1), open_for, state: State::Closed { failures: 0 } }
    }

    /// Asks leave for a call. After [`Verdict::Probe`], [`Breaker::succeeded`] or [`Breaker::failed`] must follow.
    pub fn admit(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Closed { .. } => Verdict::Allow,
            State::Open { until, factor } if now >= until => {
                self.state = State::Probing { factor };
                Verdict::Probe
            }
            State::Open { until, .. } => Verdict::Refuse { until: Some(until) },
            State::Probing { .. } => Verdict::Refuse { until: None },
        }
    }

    /// A call went well: closed. True if it was not closed before.
    pub fn succeeded(&mut self) -> bool {
        let was_closed = matches!(self.state, State::Closed { .. });
        self.state = State::Closed { failures: 0 };
        !was_closed
    }

    /// A call failed. True if this opened the breaker from closed.
    pub fn failed(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { failures } if failures + 1 < self.threshold => {
                self.state = State::Closed { failures: failures + 1 };
                false
            }
            State::Closed { .. } => {
                self.state = State::Open { until: now + self.open_for, factor: 1 };
                true
            }
            State::Probing { factor } | State::Open { factor, .. } => {
                let factor = factor.saturating_mul(2).min(MAX_OPEN_FACTOR);
                self.state = State::Open { until: now + self.open_for * factor, factor };
                false
            }
        }
    }

    /// Lets the next call through as a probe at once: something else showed that the peer may be back.
    pub fn hint(&mut self, now: Instant) {
        if let State::Open { factor, .. } = self.state {
            self.state = State::Open { until: now, factor };
        }
    }

    /// Is it closed, so that calls go on without a probe?
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(30);

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not_count() {
        let now = crate::a_moment();
        let mut breaker = Breaker::new(3, OPEN);
        assert!(!breaker.failed(now) && !breaker.failed(now));
        breaker.succeeded();
        assert!(!breaker.failed(now) && !breaker.failed(now));
        assert_eq!(breaker.admit(now), Verdict::Allow);
        assert!(breaker.failed(now));
        assert_eq!(breaker.admit(now), Verdict::Refuse { until: Some(now + OPEN) });
    }

    #[test]
    fn one_probe_at_a_time_and_each_failed_one_doubles_the_wait_to_a_cap() {
        let mut now = crate::a_moment();
        let mut breaker = Breaker::new(1, OPEN);
        breaker.failed(now);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let Verdict::Refuse { until: Some(until) } = breaker.admit(now) else { panic!("open") };
            waits.push((until - now).as_secs());
            now = until;
            assert_eq!(breaker.admit(now), Verdict::Probe);
            assert_eq!(breaker.admit(now), Verdict::Refuse { until: None });
            assert!(!breaker.failed(now));
        }
        assert_eq!(waits, [30, 60, 120, 240, 240]);
    }

    #[test]
    fn a_good_probe_closes_it() {
        let now = crate::a_moment();
        let mut breaker = Breaker::new(1, OPEN);
        breaker.failed(now);
        assert_eq!(breaker.admit(now + OPEN), Verdict::Probe);
        assert!(breaker.succeeded());
        assert_eq!(breaker.admit(now + OPEN), Verdict::Allow);
    }
}
