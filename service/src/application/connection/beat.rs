//! When sockets are pinged.
//!
//! Pings fall on moments that are common to all sockets, a hundredth of the interval apart: those that are due together wake their thread once instead of once each. And
//! sockets that came one after another on a thread have their moments in common. Their tasks lie side by side in memory, and so does what the system has of
//! them; an idle socket's memory has left every cache between two pings, and on some virtual machines has to be asked back from the host page by page, so that it
//! matters whether a page is visited once for many sockets or once for each.

use std::{cell::Cell, sync::LazyLock, time::Duration};

use tokio::time::Instant;

/// Moments within an interval.
const BEATS: u32 = 100;
/// Sockets that came one after another and are pinged together. Few, so that sockets that came together (after a failover) are not all pinged together for ever.
const NEIGHBOURS: u32 = 32;

thread_local! {
    static NEIGHBOURHOOD: Cell<Neighbourhood> = const { Cell::new(Neighbourhood { room: 0, beat: 0 }) };
}

/// Those that came last on this thread.
#[derive(Debug, Clone, Copy)]
struct Neighbourhood {
    /// For so many more.
    room: u32,
    /// Their moment, in each half of the interval.
    beat: u32,
}

impl Neighbourhood {
    /// Takes one more in.
    fn joined(self) -> Self {
        match self.room.checked_sub(1) {
            Some(room) => Self { room, ..self },
            None => Self { room: NEIGHBOURS - 1, beat: rand::random_range(0..BEATS / 2) },
        }
    }
}

/// When a socket that came to this thread now is pinged first: after half an interval or more, and less than a whole one.
pub(super) fn first(now: Instant, interval: Duration) -> Instant {
    let Neighbourhood { beat, .. } = NEIGHBOURHOOD.with(|neighbourhood| {
        neighbourhood.set(neighbourhood.get().joined());
        neighbourhood.get()
    });
    let beat_length = (interval / BEATS).max(Duration::from_nanos(1));
    let half = beat_length * (BEATS / 2);
    first_of(now + half, half, beat_length * beat)
}

/// The first moment that is not before `at`.
pub(super) fn at(at: Instant, interval: Duration) -> Instant {
    first_of(at, (interval / BEATS).max(Duration::from_nanos(1)), Duration::ZERO)
}

/// Of the moments that are `period` apart, one of them `offset` after the clock's start, the first that is not before `at`.
fn first_of(at: Instant, period: Duration, offset: Duration) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let period = period.as_nanos();
    let past = (at.saturating_duration_since(*START).as_nanos() + period - offset.as_nanos() % period) % period;
    let rest = if past == 0 { 0 } else { period - past };
    at + Duration::from_nanos(u64::try_from(rest).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(20);

    #[test]
    fn pings_of_many_sockets_fall_on_few_moments_none_of_them_early_or_much_late() {
        let now = Instant::now();
        let mut moments = std::collections::BTreeSet::new();
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
        for n in 0..64 * u64::from(NEIGHBOURS) {
            let came = now + Duration::from_micros(10 * n);
            let moment = first(came, INTERVAL);
            assert!(moment >= came + INTERVAL / 2 && moment < came + INTERVAL, "{:?} after", moment - came);
            assert_eq!(at(moment, INTERVAL), moment, "and so are all later ones");
            *moments.entry(moment).or_default() += 1;
        }
        // Whoever comes while a moment passes has the next of that neighbourhood, or what other tests began on this thread is not full.
        let together = moments.values().filter(|sockets| **sockets >= NEIGHBOURS / 2).count();
        assert!(together >= 20 && moments.len() <= 70, "{moments:?}");
        let most = moments.values().max().unwrap();
        assert!(*most <= 12 * NEIGHBOURS, "{moments:?}");
    }

    #[test]
    fn neighbours_that_come_seconds_apart_share_a_moment_all_the_same() {
        let now = Instant::now();
        while NEIGHBOURHOOD.with(Cell::get).room != 0 {
            first(now, INTERVAL);
        }
        let moments = (0..NEIGHBOURS).map(|n| first(now + Duration::from_secs(n.into()), INTERVAL));
        let phase = |moment: Instant| (moment - now).as_nanos() % (INTERVAL / 2).as_nanos();
        let phases: std::collections::BTreeSet<_> = moments.map(phase).collect();
        assert_eq!(phases.len(), 1, "{phases:?}");
    }
}
