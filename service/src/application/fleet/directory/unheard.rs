//! Pods on routes of whom the fleet has never heard.
//!
//! Some never announce themselves: the predecessor's, which take their events from a consumer of their own, and whatever else
//! somebody writes into a route. Others are about to: a store that lost its data may hold a pod's route a moment before it holds
//! its record. So such an id is in doubt when it is first seen, and once it has had the time for an announcement it is foreign:
//! nobody has to ask about it again for a while.

use std::time::Duration;

use tokio::time::Instant;

use daisi_ws_domain::{ids::PodId, maps::Map};

/// How long an id is in doubt: two announcements of a pod with the default TTL.
const GRACE: Duration = Duration::from_secs(2);
/// How long a foreign id is taken for one without asking again.
const FOREIGN_FOR: Duration = Duration::from_secs(60);
/// Ids that are remembered; past that they stay in doubt.
const MAX_IDS: usize = 16_384;

/// What is remembered of one id.
#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Instant,
    /// Nobody asks about it before this.
    foreign_until: Option<Instant>,
    /// It is forgotten then.
    kept_until: Instant,
}

/// The ids that nobody has heard of.
#[derive(Debug, Default)]
pub(super) struct Unheard(Map<PodId, Seen>);

impl Unheard {
    /// Is it known to be foreign?
    pub(super) fn is_foreign(&self, pod: &PodId, now: Instant) -> bool {
        self.0.get(pod).and_then(|seen| seen.foreign_until).is_some_and(|until| now < until)
    }

    /// The store, asked at `asked`, has not heard of it. Is it foreign now?
    pub(super) fn note(&mut self, pod: &PodId, asked: Instant) -> bool {
        if self.0.len() >= MAX_IDS && !self.0.contains_key(pod) {
            self.0.retain(|_, seen| asked < seen.kept_until);
            if self.0.len() >= MAX_IDS {
                return false;
            }
        }
        let fresh = Seen { first: asked, foreign_until: None, kept_until: asked };
        let seen = self.0.entry(pod.clone()).or_insert(fresh);
        if asked >= seen.kept_until && seen.foreign_until.is_some() {
            // So long ago that a pod may have got the id meanwhile.
            *seen = fresh;
        }
        let foreign = asked.duration_since(seen.first) >= GRACE;
        seen.foreign_until = foreign.then_some(asked + FOREIGN_FOR);
        seen.kept_until = asked + 2 * FOREIGN_FOR;
        foreign
    }

    /// It has been heard of.
    pub(super) fn forget(&mut self, pod: &PodId) {
        self.0.remove(pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: usize) -> PodId {
        PodId::parse(&format!("old-{id}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_is_foreign_once_it_had_the_time_for_an_announcement() {
        let (mut unheard, now) = (Unheard::default(), Instant::now());
        assert!(!unheard.note(&pod(1), now) && !unheard.is_foreign(&pod(1), now));
        assert!(!unheard.note(&pod(1), now + GRACE / 2));
        assert!(unheard.note(&pod(1), now + GRACE));
        assert!(unheard.is_foreign(&pod(1), now + GRACE + FOREIGN_FOR / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_foreign_id_is_asked_about_again_after_a_while_and_not_in_doubt_then() {
        let (mut unheard, now) = (Unheard::default(), Instant::now());
        unheard.note(&pod(1), now);
        unheard.note(&pod(1), now + GRACE);
        let later = now + GRACE + FOREIGN_FOR;
        assert!(!unheard.is_foreign(&pod(1), later));
        assert!(unheard.note(&pod(1), later), "it has been there all the time");
        assert!(!unheard.note(&pod(1), later + 3 * FOREIGN_FOR), "it has not");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_heard_of_is_foreign_no_more() {
        let (mut unheard, now) = (Unheard::default(), Instant::now());
        unheard.note(&pod(1), now);
        unheard.note(&pod(1), now + GRACE);
        unheard.forget(&pod(1));
        assert!(!unheard.is_foreign(&pod(1), now + GRACE));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let (mut unheard, now) = (Unheard::default(), Instant::now());
        for id in 0..2 * MAX_IDS {
            unheard.note(&pod(id), now);
        }
        assert_eq!(unheard.0.len(), MAX_IDS);
        assert!(!unheard.note(&pod(2 * MAX_IDS), now + 2 * FOREIGN_FOR));
        assert_eq!(unheard.0.len(), 1, "what was not seen for long makes room");
    }
}
