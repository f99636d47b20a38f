//! What a pod has seen of its store and its peers, and what follows from that. Told the time; takes no lock and calls nobody.

use std::time::Duration;

use daisi_ws_domain::{ids::PodId, maps::Map};
use tokio::time::Instant;

use super::stance::{SLOW, Stance};
use crate::ports::MAX_PODS;

/// What is bad counts for so long after it was last seen so: a link that flaps is bad all the time.
pub(super) const RECOVERY: Duration = Duration::from_secs(2);
/// A peer's word about itself counts for so long.
pub(super) const WORD: Duration = Duration::from_millis(2500);
/// That a peer did not answer counts for so long, if it is not asked again.
const SILENCE: Duration = Duration::from_secs(3);

/// What a peer said of itself, and when.
#[derive(Debug, Clone, Copy)]
struct Word {
    at: Instant,
    is_well: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    store_bad_at: Option<Instant>,
    /// Peers that did not answer, or late, and when that was last seen.
    silent: Map<PodId, Instant>,
    /// When most peers were last so.
    peers_bad_at: Option<Instant>,
    words: Map<PodId, Word>,
}

fn is_recent(at: Option<Instant>, within: Duration, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < within)
}

impl Evidence {
    /// The store did not answer for long, or answered late.
    pub(super) fn store_is_slow(&mut self, now: Instant) {
        self.store_bad_at = Some(now);
    }

    /// The store could not be asked. That is quick, and by itself no reason: events go to every peer. But it is no recovery
    /// either.
    pub(super) fn store_failed(&mut self, now: Instant) {
        if self.is_store_bad(now) {
            self.store_bad_at = Some(now);
        }
    }

    /// A peer did not answer, or has not for long.
    pub(super) fn peer_is_silent(&mut self, pod: &PodId, now: Instant) {
        if self.silent.len() < MAX_PODS || self.silent.contains_key(pod) {
            self.silent.insert(pod.clone(), now);
        }
    }

    /// A peer answered after this time.
    pub(super) fn peer_answered(&mut self, pod: &PodId, took: Duration, now: Instant) {
        if took > SLOW {
            self.peer_is_silent(pod, now);
        } else {
            self.silent.remove(pod);
        }
    }

    /// A peer said how it is.
    pub(super) fn heard(&mut self, pod: &PodId, is_well: bool, now: Instant) {
        if self.words.len() < MAX_PODS || self.words.contains_key(pod) {
            self.words.insert(pod.clone(), Word { at: now, is_well });
        }
    }

    pub(super) fn forget(&mut self, pod: &PodId) {
        self.silent.remove(pod);
        self.words.remove(pod);
    }

    /// Does this peer not answer, as far as is known?
    pub(super) fn is_silent(&self, pod: &PodId, now: Instant) -> bool {
        is_recent(self.silent.get(pod).copied(), SILENCE, now)
    }

    /// The peers that do not answer.
    pub(super) fn silent(&self) -> impl Iterator<Item = &PodId> {
        self.silent.keys()
    }

    pub(super) fn is_store_bad(&self, now: Instant) -> bool {
        is_recent(self.store_bad_at, RECOVERY, now)
    }

    pub(super) fn are_peers_bad(&self, now: Instant) -> bool {
        is_recent(self.peers_bad_at, RECOVERY, now)
    }

    pub(super) fn is_well(&self, now: Instant) -> bool {
        !self.is_store_bad(now) && !self.are_peers_bad(now)
    }

    /// What to do, where `live` are the peers that have a liveness key.
    pub(super) fn judge(&mut self, live: &[PodId], now: Instant) -> Stance {
        self.silent.retain(|pod, at| is_recent(Some(*at), SILENCE, now) && live.contains(pod));
        self.words.retain(|pod, word| is_recent(Some(word.at), WORD, now) && live.contains(pod));
        // With one peer nobody knows whose link it is; and half of them may be frozen.
        if live.len() > 1 && 2 * self.silent.len() > live.len() {
            self.peers_bad_at = Some(now);
        }
        let (is_store_bad, are_peers_bad) = (self.is_store_bad(now), self.are_peers_bad(now));
        if live.is_empty() || !(is_store_bad || are_peers_bad) {
            return Stance::Serves;
        }
        if self.words.is_empty() {
            // Nobody is known to be as bad. If all are, the first answer says so.
            return Stance::PassesOn;
        }
        match self.words.values().any(|word| word.is_well) {
            false => Stance::Serves,
            true if are_peers_bad => Stance::PassesOn,
            true => Stance::StepsBack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: usize) -> PodId {
        PodId::parse(&format!("pod-{id}")).unwrap()
    }

    fn fleet(peers: usize) -> Vec<PodId> {
        (0..peers).map(pod).collect()
    }

    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_serves_whatever_its_store_does() {
        let (mut evidence, now) = (Evidence::default(), Instant::now());
        evidence.store_is_slow(now);
        assert_eq!(evidence.judge(&[], now), Stance::Serves);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_store_passes_on_until_somebody_speaks_then_steps_back_if_one_is_well_and_serves_if_none_is() {
        let (mut evidence, now, peers) = (Evidence::default(), Instant::now(), fleet(2));
        evidence.store_is_slow(now);
        assert_eq!(evidence.judge(&peers, now), Stance::PassesOn);
        evidence.heard(&pod(0), false, now);
        assert_eq!(evidence.judge(&peers, now), Stance::Serves);
        evidence.heard(&pod(1), true, now);
        assert_eq!(evidence.judge(&peers, now), Stance::StepsBack);
        evidence.heard(&pod(1), false, now + MOMENT);
        assert_eq!(evidence.judge(&peers, now + MOMENT), Stance::Serves);
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_is_forgotten_and_so_is_a_pod_that_is_gone() {
        let (mut evidence, now, peers) = (Evidence::default(), Instant::now(), fleet(2));
        evidence.heard(&pod(0), true, now);
        for step in 1..=30 {
            evidence.store_is_slow(now + WORD * step / 10);
            let expected = if step < 10 { Stance::StepsBack } else { Stance::PassesOn };
            assert_eq!(evidence.judge(&peers, now + WORD * step / 10), expected, "{step}");
        }
        let now = now + WORD * 3;
        evidence.heard(&pod(0), true, now);
        assert_eq!(evidence.judge(&peers[1..], now), Stance::PassesOn, "it is no member any more");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_well_again_two_seconds_after_the_last_bad_answer_and_failures_are_no_recovery() {
        let (mut evidence, now, peers) = (Evidence::default(), Instant::now(), fleet(2));
        evidence.store_failed(now);
        assert_eq!(evidence.judge(&peers, now), Stance::Serves, "who fails at once holds nobody up");
        evidence.store_is_slow(now);
        evidence.store_failed(now + RECOVERY / 2);
        assert_eq!(evidence.judge(&peers, now + RECOVERY), Stance::PassesOn);
        assert_eq!(evidence.judge(&peers, now + RECOVERY * 3 / 2), Stance::Serves);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_half_of_the_peers_must_be_silent_and_a_pair_never_knows() {
        for (peers, silent, expected) in [
            (1, 1, Stance::Serves),
            (2, 1, Stance::Serves),
            (2, 2, Stance::PassesOn),
            (4, 2, Stance::Serves),
            (5, 3, Stance::PassesOn),
        ] {
            let (mut evidence, now) = (Evidence::default(), Instant::now());
            (0..silent).for_each(|id| evidence.peer_is_silent(&pod(id), now));
            assert_eq!(evidence.judge(&fleet(peers), now), expected, "{silent} of {peers}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reaches_its_peers_badly_takes_events_for_its_own_sockets_and_passes_them_on() {
        let (mut evidence, now, peers) = (Evidence::default(), Instant::now(), fleet(2));
        evidence.store_is_slow(now);
        for peer in &peers {
            evidence.peer_answered(peer, SLOW * 2, now);
            evidence.heard(peer, true, now);
        }
        assert_eq!(evidence.judge(&peers, now), Stance::PassesOn);
        for peer in &peers {
            evidence.peer_answered(peer, SLOW / 2, now + MOMENT);
        }
        let later = now + RECOVERY + MOMENT;
        evidence.store_is_slow(later);
        assert_eq!(evidence.judge(&peers, later), Stance::StepsBack, "the links are good again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_silent_long_ago_does_not_count() {
        let (mut evidence, now, peers) = (Evidence::default(), Instant::now(), fleet(2));
        evidence.peer_is_silent(&pod(0), now);
        assert_eq!(evidence.judge(&peers, now), Stance::Serves);
        evidence.peer_is_silent(&pod(1), now + SILENCE);
        assert_eq!(evidence.judge(&peers, now + SILENCE), Stance::Serves);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let (mut evidence, now) = (Evidence::default(), Instant::now());
        for id in 0..2 * MAX_PODS {
            evidence.peer_is_silent(&pod(id), now);
            evidence.heard(&pod(id), true, now);
        }
        assert_eq!((evidence.silent.len(), evidence.words.len()), (MAX_PODS, MAX_PODS));
    }
}
