//! Which calls were made before: a proof opens one.
//!
//! A caller numbers the calls of a connection in series, and they arrive nearly in order. So a window of bits a series remembers
//! them all, however many they are, in 150 bytes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::adapters::grpc::proof::TOLERANCE;

/// Numbers by which a call may come after its successors: far more than can be under way on one connection.
const WINDOW: u64 = 1024;

const WORDS: usize = 16;

/// Series that are remembered: some for each pod of the largest fleet. Only who belongs to the fleet begins one.
const MAX_SERIES: usize = 8192;

/// After this without a call, none of a series can come again: its last was of a time at most [`TOLERANCE`] ahead, and is too old
/// so long after that.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2 * TOLERANCE.as_secs() + 5);

#[derive(Debug)]
struct Series {
    highest: u64,
    /// One bit a number, at the number's remainder.
    seen: [u64; WORDS],
    last: Instant,
}

/// The calls of all callers.
#[derive(Debug, Default)]
pub(crate) struct Replays(Mutex<HashMap<u128, Series>>);

impl Replays {
    /// Notes a call whose proof is right. False if it was made before, or may have been.
    pub(crate) fn note(&self, series: u128, number: u64, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_SERIES && !all.contains_key(&series) {
            all.retain(|_, series| now.duration_since(series.last) < FORGOTTEN_AFTER);
            if all.len() >= MAX_SERIES {
                return false;
            }
        }
        let fresh = || Series { highest: 0, seen: [0; WORDS], last: now };
        let series = all.entry(series).or_insert_with(fresh);
        series.last = now;
        series.note(number)
    }
}

impl Series {
    fn note(&mut self, number: u64) -> bool {
        if number > self.highest {
            let ahead = number - self.highest;
            if ahead >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                (self.highest + 1..=number).for_each(|passed| self.clear(passed));
            }
            self.highest = number;
        } else if self.highest - number >= WINDOW {
            return false;
        }
        let (word, bit) = place(number);
        let seen = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        !seen
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] &= !bit;
    }
}

fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    (usize::try_from(at / 64).unwrap_or(0), 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_number_of_a_series_counts_once_in_whatever_order() {
        let (replays, now) = (Replays::default(), Instant::now());
        for number in [1, 3, 2, 100, 5000, 4999, 5000 - WINDOW + 1, u64::MAX, u64::MAX - 1] {
            assert!(replays.note(7, number, now), "{number}");
            assert!(!replays.note(7, number, now), "{number} again");
            assert!(replays.note(8, number, now), "{number} of another series");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_from_before_the_window_may_have_been_seen() {
        let (replays, now) = (Replays::default(), Instant::now());
        assert!(replays.note(7, 5000, now));
        assert!(!replays.note(7, 5000 - WINDOW, now));
        assert!((1..=3 * WINDOW).all(|number| replays.note(9, number, now)));
        assert!((1..=3 * WINDOW).all(|number| !replays.note(9, number, now)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_nothing_is_forgotten_too_early() {
        let (replays, now) = (Replays::default(), Instant::now());
        for series in 0..MAX_SERIES as u128 {
            assert!(replays.note(series, 1, now));
        }
        assert!(!replays.note(u128::MAX, 1, now + FORGOTTEN_AFTER - Duration::from_secs(1)), "all may still be replayed");
        assert!(!replays.note(0, 1, now + FORGOTTEN_AFTER - Duration::from_secs(1)));
        assert!(replays.note(u128::MAX, 1, now + FORGOTTEN_AFTER));
        assert_eq!(replays.0.lock().unwrap().len(), 2);
    }
}
