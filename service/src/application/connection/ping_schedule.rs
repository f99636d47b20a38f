//! When sockets are pinged.
//!
//! Pings fall on moments that are common to all sockets, a hundredth of the interval apart: those that are due together wake
//! their thread once instead of once each. And sockets that came one after another have their moments in common. Their tasks lie
//! side by side in memory, and so does what the system has of them; an idle socket's memory has left every cache between two
//! pings, and on some virtual machines costs microseconds for each page to get back, so that it matters whether a page is visited
//! once for many sockets or once for each.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::runtime::{chance, clock};

/// Moments within an interval.
const BEATS: u32 = 100;
/// Sockets that came one after another and are pinged together. Few, so that sockets that came together (after a failover) are
/// not all pinged together for ever.
const NEIGHBOURS: u32 = 64;
/// From the moment of one neighbourhood to that of the next, in beats: it has no divisor in common with half of them, so that all
/// get their share, and is long, so that those who came within seconds have moments far apart.
const STRIDE: u32 = 19;

/// When a socket that comes now is pinged first: after half an interval or more, and less than a whole one.
pub(super) fn first(now: Instant, interval: Duration) -> Instant {
    static ARRIVED: AtomicU32 = AtomicU32::new(0);
    let number = chance::in_place_of_a_count().unwrap_or_else(|| ARRIVED.fetch_add(1, Ordering::Relaxed));
    first_of_arrival(number, now, interval)
}

fn first_of_arrival(number: u32, now: Instant, interval: Duration) -> Instant {
    let beat_length = (interval / BEATS).max(Duration::from_nanos(1));
    let half = BEATS / 2;
    let beat = (number / NEIGHBOURS).wrapping_mul(STRIDE) % half;
    first_of(now + beat_length * half, beat_length * half, beat_length * beat)
}

/// The first moment that is not before `at`.
pub(super) fn at(at: Instant, interval: Duration) -> Instant {
    first_of(at, (interval / BEATS).max(Duration::from_nanos(1)), Duration::ZERO)
}

/// Of the moments that are `period` apart, one of them `offset` after the clock's start, the first that is not before `at`.
fn first_of(at: Instant, period: Duration, offset: Duration) -> Instant {
    let period = period.as_nanos();
    let past = (at.saturating_duration_since(clock::start()).as_nanos() + period - offset.as_nanos() % period) % period;
    let rest = if past == 0 { 0 } else { period - past };
    at + Duration::from_nanos(u64::try_from(rest).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(20);

    #[test]
    fn pings_of_many_sockets_fall_on_few_moments_none_of_them_early_or_much_late() {
        let now = Instant::now();
        let mut moments = BTreeSet::new();
        for n in 0..10_000 {
            let due = now + Duration::from_millis(n);
            let moment = at(due, INTERVAL);
            assert!(moment >= due && moment < due + INTERVAL / BEATS);
            assert_eq!(at(moment, INTERVAL), moment, "a moment is its own");
            moments.insert(moment);
        }
        assert!((50..=51).contains(&moments.len()), "{} moments", moments.len());
    }

    #[test]
    fn sockets_that_came_together_are_pinged_with_their_neighbours_and_not_with_all_others() {
        let now = Instant::now();
        let mut moments = BTreeMap::<_, u32>::new();
        for n in 0..64 * NEIGHBOURS {
            let came = now + Duration::from_micros((10 * n).into());
            let moment = first_of_arrival(n, came, INTERVAL);
            assert!(moment >= came + INTERVAL / 2 && moment < came + INTERVAL, "{:?} after", moment - came);
            assert_eq!(at(moment, INTERVAL), moment, "and so are all later ones");
            *moments.entry(moment).or_default() += 1;
        }
        // One more where a moment passed while they came.
        assert!((50..=51).contains(&moments.len()), "{moments:?}");
        assert!(moments.values().all(|sockets| *sockets <= 2 * NEIGHBOURS), "{moments:?}");
    }

    #[test]
    fn neighbours_that_come_seconds_apart_share_a_moment_all_the_same() {
        let now = Instant::now();
        let moments = (0..NEIGHBOURS).map(|n| first_of_arrival(n, now + Duration::from_secs(n.into()), INTERVAL));
        let phase = |moment: Instant| (moment - now).as_nanos() % (INTERVAL / 2).as_nanos();
        let phases: BTreeSet<_> = moments.map(phase).collect();
        assert_eq!(phases.len(), 1, "{phases:?}");
    }

    #[test]
    fn whoever_comes_is_counted() {
        let now = Instant::now();
        let moments: BTreeSet<_> = (0..4 * NEIGHBOURS).map(|_| first(now, INTERVAL)).collect();
        assert!(moments.len() >= 4, "{moments:?}");
    }
}
