//! How long to wait before something that failed is tried again.
//!
//! One rule for all that this pod does again: each wait is twice the one before, up to a cap, and drawn from a range, so that a
//! fleet that lost the same server in one instant does not come back to it in one instant.

use std::time::Duration;

use super::chance;

/// The part of each wait that is left to chance: a wait is drawn from its upper half.
const JITTER: f64 = 0.5;

/// The waits between attempts at one thing.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f64,
    /// Waits since the last success.
    attempts: u32,
}

impl Backoff {
    /// Waits of `min` at first and of `max` in the end, less their jitter.
    #[must_use]
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, jitter: JITTER, attempts: 0 }
    }

    /// The same with another part of each wait left to chance, from 0 (none) to 1 (all).
    #[must_use]
    pub(crate) const fn with_jitter(self, jitter: f64) -> Self {
        Self { jitter: jitter.clamp(0.0, 1.0), ..self }
    }

    /// The wait before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        self.nth(u64::from(self.attempts))
    }

    /// The wait after so many failures, for anyone who counts them; the first is 1.
    #[must_use]
    pub(crate) fn nth(&self, failures: u64) -> Duration {
        self.drawn(failures, chance::draw())
    }

    /// The same, drawn by something that has a number: anyone who asks again about the same thing gets the same wait.
    #[must_use]
    pub(crate) fn nth_of(&self, failures: u64, number: u64) -> Duration {
        self.drawn(failures, share_of(number))
    }

    /// It worked: the next wait is the first again.
    pub(crate) const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The wait for a draw from 0 to 1, without chance.
    fn drawn(&self, failures: u64, draw: f64) -> Duration {
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
        let longest = self.min.saturating_mul(1 << doublings).min(self.max.max(self.min));
        longest.saturating_sub(longest.mul_f64(self.jitter * draw))
    }
}

/// A number's place between 0 and 1; neighbours are far apart (Fibonacci hashing).
fn share_of(number: u64) -> f64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    f64::from(u32::try_from(mixed >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_cap() {
        let backoff = Backoff::new(MIN, MAX);
        let waits: Vec<_> = (1..=7).map(|failures| backoff.drawn(failures, 0.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.drawn(0, 0.0), MIN);
        assert_eq!(backoff.drawn(u64::MAX, 0.0), MAX);
    }

    #[test]
    fn a_wait_is_drawn_from_its_upper_half_and_two_pods_differ() {
        let mut backoff = Backoff::new(MIN, MAX);
        for longest in [50, 100, 200, 400, 800, 1000, 1000] {
            let longest = Duration::from_millis(longest);
            let wait = backoff.pause();
            assert!((longest / 2..=longest).contains(&wait), "{wait:?} of {longest:?}");
        }
        let waits: std::collections::BTreeSet<_> = (0..100).map(|_| backoff.nth(7)).collect();
        assert!(waits.len() > 90, "{} different waits of 100", waits.len());
    }

    #[test]
    fn numbered_things_are_spread_and_keep_their_wait() {
        let backoff = Backoff::new(MIN, MAX);
        let waits: Vec<_> = (1..=100).map(|number| backoff.nth_of(9, number)).collect();
        assert_eq!(waits, (1..=100).map(|number| backoff.nth_of(9, number)).collect::<Vec<_>>());
        for tenth in 0..10 {
            let (from, to) = (MAX / 2 + MAX / 20 * tenth, MAX / 2 + MAX / 20 * (tenth + 1));
            let count = waits.iter().filter(|wait| (from..=to).contains(*wait)).count();
            assert!((8..=12).contains(&count), "{count} of 100 from {from:?} to {to:?}");
        }
    }

    #[test]
    fn what_is_left_to_chance_can_be_chosen() {
        let drawn = |jitter| Backoff::new(MIN, MAX).with_jitter(jitter).drawn(9, 1.0);
        assert_eq!([drawn(0.0), drawn(0.25), drawn(1.0), drawn(7.0)], [MAX, MAX * 3 / 4, Duration::ZERO, Duration::ZERO]);
    }

    #[test]
    fn a_success_begins_anew() {
        let mut backoff = Backoff::new(MIN, MAX).with_jitter(0.0);
        (0..5).for_each(|_| _ = backoff.pause());
        backoff.reset();
        assert_eq!([backoff.pause(), backoff.pause()], [MIN, MIN * 2]);
    }

    #[test]
    fn no_setting_makes_it_overflow() {
        for (min, max) in [(Duration::MAX, Duration::MAX), (Duration::from_secs(9), Duration::ZERO), (Duration::ZERO, MAX)] {
            let mut backoff = Backoff::new(min, max);
            (0..100).for_each(|_| _ = backoff.pause());
        }
    }
}
