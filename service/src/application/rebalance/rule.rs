//! When a pod has so many more sockets than others that clients are asked to move, and how many of them.
//!
//! It begins past 1.2 times the average and ends at 1.1, so that what comes and goes by itself begins nothing.

use crate::ports::PodLoad;

/// With so many tenths of the average clients are asked to move, and no more with so many.
const BEGINS_PAST: u128 = 12;
const ENDS_AT: u128 = 11;
const WHOLE: u128 = 10;
/// Nothing begins with fewer sockets over the average.
const LEAST_EXCESS: u128 = 20;
/// One of so many sockets is asked in a second.
const SHARE_A_SECOND: usize = 100;

/// What the pods have on average that let clients in: exact, so nothing depends on how a fraction is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Average {
    /// Of all these pods together.
    sockets: u128,
    pods: u128,
}

/// How many clients are to be asked to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Within this second.
    pub now: usize,
    /// Until the pod is even with others.
    pub in_all: usize,
}

impl Average {
    /// Of this pod and its peers. What a pod has that drains is about to come to the others.
    pub(super) fn of(own: usize, peers: &[PodLoad]) -> Self {
        let peers = peers.iter().filter(|peer| !peer.draining);
        let own = Self { sockets: wide(own), pods: 1 };
        peers.fold(own, |sum, peer| Self { sockets: sum.sockets + u128::from(peer.sockets), pods: sum.pods + 1 })
    }

    /// How many pods it is of.
    pub(super) fn pods(&self) -> u64 {
        u64::try_from(self.pods).unwrap_or(u64::MAX)
    }

    /// How many sockets it is, rounded down.
    pub(super) fn sockets(&self) -> u64 {
        u64::try_from(self.sockets / self.pods).unwrap_or(u64::MAX)
    }

    /// These sockets over it.
    #[expect(clippy::cast_precision_loss, reason = "it is shown, and decides nothing")]
    pub(super) fn ratio(&self, own: usize) -> f64 {
        if self.sockets == 0 { 1.0 } else { (wide(own) * self.pods) as f64 / self.sockets as f64 }
    }

    /// How many are to be asked of `own` sockets, of which `asked` were asked already and count as gone. `None` for a pod that is
    /// even with others; it is sooner while nobody is being asked.
    pub(super) fn step(&self, own: usize, asked: usize, is_asking: bool) -> Option<Step> {
        let all = wide(own) * self.pods;
        let begins = all * WHOLE > self.sockets * BEGINS_PAST && all >= self.sockets + LEAST_EXCESS * self.pods;
        let even = usize::try_from(self.sockets * ENDS_AT / (self.pods * WHOLE)).unwrap_or(usize::MAX);
        if own <= even || !(begins || is_asking) {
            return None;
        }
        let in_all = (own - even).saturating_sub(asked);
        Some(Step { now: in_all.min((own / SHARE_A_SECOND).max(1)), in_all })
    }
}

fn wide(count: usize) -> u128 {
    // Nowhere is a number of things wider.
    u128::try_from(count).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn average(own: usize, peers: &[u64]) -> Average {
        let loads: Vec<_> = peers.iter().map(|&sockets| PodLoad { sockets, draining: false }).collect();
        Average::of(own, &loads)
    }

    fn begins(own: usize, peers: &[u64]) -> bool {
        average(own, peers).step(own, 0, false).is_some()
    }

    #[test]
    fn clients_are_asked_past_six_fifths_of_the_average_and_until_eleven_tenths() {
        assert!(!begins(1200, &[800]) && begins(1201, &[799]));
        let average = average(1201, &[799]);
        assert_eq!(average.step(1101, 0, false), None);
        assert_eq!(average.step(1101, 0, true), Some(Step { now: 1, in_all: 1 }));
        assert_eq!(average.step(1100, 0, true), None);
    }

    #[test]
    fn no_more_than_a_hundredth_is_asked_in_a_second_and_at_least_one() {
        assert_eq!(average(3000, &[1000]).step(3000, 0, false), Some(Step { now: 30, in_all: 800 }));
        assert_eq!(average(60, &[20]).step(60, 0, false), Some(Step { now: 1, in_all: 16 }));
    }

    #[test]
    fn who_was_asked_counts_as_gone_and_the_round_goes_on_until_they_are() {
        let average = average(3000, &[1000]);
        assert_eq!(average.step(3000, 790, true), Some(Step { now: 10, in_all: 10 }));
        assert_eq!(average.step(3000, 800, true), Some(Step { now: 0, in_all: 0 }));
        assert_eq!(average.step(3000, 2000, true), Some(Step { now: 0, in_all: 0 }));
        assert_eq!(average.step(2200, 0, true), None);
    }

    #[test]
    fn a_tiny_fleet_stays_as_it_is() {
        assert!(!begins(39, &[0]) && begins(40, &[0]));
        assert!(!begins(20, &[]) && !begins(0, &[0]) && !begins(25, &[9, 9]));
    }

    #[test]
    fn pods_that_drain_are_none_of_the_fleet() {
        let drains = PodLoad { sockets: 0, draining: true };
        assert_eq!(Average::of(300, &[drains, drains]), Average::of(300, &[]));
        assert_eq!(Average::of(300, &[drains]).step(300, 0, false), None);
    }

    #[test]
    fn whatever_peers_say_no_pod_gives_away_more_than_it_has_too_many() {
        for said in [0, 1, u64::MAX / 2, u64::MAX] {
            for own in [0, 1, 1000, usize::MAX] {
                let average = average(own, &[said; 1024]);
                let even = |left: usize| average.step(left, 0, true).is_none();
                if let Some(Step { now, in_all }) = average.step(own, 0, false) {
                    assert!(now <= in_all && in_all <= own && even(own - in_all) && !even(own - in_all + 1), "{own} of {said}");
                }
                assert!(average.ratio(own).is_finite());
            }
        }
    }

    #[test]
    fn pods_that_each_give_away_what_they_have_too_many_stay_above_the_average() {
        // Whoever gives away is above, so what others give away at once takes nobody below.
        let fleet = [900_u64, 700, 100, 0];
        for own in [900_usize, 700] {
            let peers: Vec<u64> = fleet.iter().copied().filter(|&peer| peer != own as u64).collect();
            let step = average(own, &peers).step(own, 0, false).unwrap();
            assert!(own - step.in_all >= 425, "{step:?}");
        }
    }
}
