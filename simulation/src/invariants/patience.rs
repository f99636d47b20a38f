//! How long what is wrong with a session may last.

use std::time::Duration;

use crate::plan::{Rate, Rates, Settings};

/// How long it may last, by how a fleet is configured and what befalls its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// That a session has two sockets.
    pub loser: Duration,
    /// That a lock names a socket which is no more.
    pub ghost: Duration,
    /// What comes of a trouble, after it.
    pub settling: Duration,
}

/// What needs no time but that of some calls is done by then.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Calls that come one after another until the loser of a session is told, or a lock is let go.
const CALLS: u32 = 4;

impl Bounds {
    /// Where calls may take longer but do not fail, kills arrive and locks are let go at once. Else the loser is told by its
    /// renewal, which may fail some times, and a lock is let go after the next renewal that has an answer.
    #[must_use]
    pub fn of(rates: &Rates, settings: &Settings) -> Self {
        let Rates { locks, kills, peers, .. } = rates;
        let at_once = |rates: &[&Rate]| {
            let are_sure = rates.iter().all(|rate| rate.refused + rate.unanswered == 0.0);
            let slowest = rates.iter().filter(|rate| rate.delayed > 0.0).map(|rate| rate.delay).max().unwrap_or(0);
            are_sure.then(|| AT_ONCE + CALLS * Duration::from_millis(slowest))
        };
        Self {
            loser: at_once(&[locks, kills, peers]).unwrap_or(settings.refresh() + Duration::from_secs(8)),
            ghost: at_once(&[locks]).unwrap_or(settings.refresh() * 2 + Duration::from_secs(2)),
            settling: Duration::from_secs(settings.session_ttl + 4) + settings.refresh(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn what_fails_is_waited_for_and_what_is_slow_only_as_long_as_it_is() {
        let settings = Settings { session_ttl: 15, ..Plan::of(1).settings };
        let of = |locks: Rate| Bounds::of(&Rates { locks, ..Rates::default() }, &settings);
        let seconds = |bounds: Bounds| (bounds.loser.as_secs_f64(), bounds.ghost.as_secs_f64(), bounds.settling.as_secs());
        assert_eq!(seconds(of(Rate::default())), (1.0, 1.0, 24));
        assert_eq!(seconds(of(Rate { delayed: 0.1, delay: 250, ..Rate::default() })), (2.0, 2.0, 24));
        assert_eq!(seconds(of(Rate { refused: 0.1, ..Rate::default() })), (13.0, 12.0, 24));
    }
}
