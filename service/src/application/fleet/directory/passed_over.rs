//! Events that this pod settled without knowing for certain who wants them, and who has to hear of it.
//!
//! While the store says nothing that can be trusted, events go to every peer that is known. A process that came meanwhile is not,
//! and neither is one that was found dead and lives. When such a one is met, its sessions are owed a gap.

use std::time::Duration;

use daisi_ws_domain::{
    gap::{Gap, GapCause},
    ids::PodId,
    maps::Map,
    peer::PodRecord,
};
use tokio::time::Instant;

/// So long after the last such event a process that is met has not been passed over: a pod makes itself known before it has
/// sessions, and again and again while nobody sees it.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// What sessions of others may have missed because of this pod.
#[derive(Debug, Default)]
pub(super) struct PassedOver {
    /// First and last of the events, and when the last was settled.
    events: Option<(u64, u64, Instant)>,
    /// Who is owed what. At most one a peer that was ever met.
    debts: Map<PodId, (PodRecord, Gap)>,
}

impl PassedOver {
    /// Notes an event whose targets are uncertain.
    pub(super) fn note(&mut self, seq: u64, now: Instant) {
        let events = self.events.filter(|(.., at)| now < *at + KEPT_FOR);
        let (first, last) = events.map_or((seq, seq), |(first, last, _)| (first.min(seq), last.max(seq)));
        self.events = Some((first, last, now));
    }

    /// A process is met for the first time.
    pub(super) fn met_new(&mut self, pod: &PodRecord, now: Instant) {
        let Some((first, last, _)) = self.events.filter(|(.., at)| now < *at + KEPT_FOR) else { return };
        self.owe(pod, Gap { dropped: None, first_seq: Some(first), last_seq: Some(last), cause: GapCause::GivenUp });
    }

    /// A process is met that this pod found dead, and settled events without: it may not have heard of that, where the store has
    /// lost the count, or where this pod went on after it was back.
    pub(super) fn met_dead(&mut self, pod: &PodRecord, settled: Option<(u64, u64)>) {
        let Some((first, last)) = settled else { return };
        self.owe(pod, Gap { dropped: None, first_seq: Some(first), last_seq: Some(last), cause: GapCause::PodResumed });
    }

    fn owe(&mut self, pod: &PodRecord, gap: Gap) {
        let gap = self.debts.get(&pod.id).map_or(gap, |(_, before)| before.merge(gap));
        self.debts.insert(pod.id.clone(), (pod.clone(), gap));
    }

    /// Takes what is owed, and to whom.
    pub(super) fn take_debts(&mut self) -> impl Iterator<Item = (PodRecord, Gap)> + use<> {
        std::mem::take(&mut self.debts).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> PodRecord {
        PodRecord { id: PodId::parse(id).unwrap(), address: format!("{id}:1"), started_at: Duration::from_secs(1) }
    }

    fn gap(range: Option<(u64, u64)>, cause: GapCause) -> Gap {
        Gap { dropped: None, first_seq: range.map(|(first, _)| first), last_seq: range.map(|(_, last)| last), cause }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_met_is_owed_the_range_of_what_was_settled_in_doubt_lately() {
        let (mut passed_over, now) = (PassedOver::default(), Instant::now());
        passed_over.met_new(&record("a"), now);
        assert_eq!(passed_over.take_debts().count(), 0, "nothing was in doubt");
        [7, 5, 9].into_iter().for_each(|seq| passed_over.note(seq, now));
        passed_over.met_new(&record("b"), now);
        let owed: Vec<_> = passed_over.take_debts().collect();
        assert_eq!(owed, [(record("b"), gap(Some((5, 9)), GapCause::GivenUp))]);
        passed_over.met_new(&record("c"), now + KEPT_FOR);
        assert_eq!(passed_over.take_debts().count(), 0, "it is too long ago");
        passed_over.note(20, now + KEPT_FOR);
        passed_over.met_new(&record("d"), now + KEPT_FOR);
        assert_eq!(passed_over.take_debts().next().map(|(_, owed)| owed), Some(gap(Some((20, 20)), GapCause::GivenUp)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_found_dead_and_lives_is_owed_what_was_settled_without_it() {
        let mut passed_over = PassedOver::default();
        passed_over.met_dead(&record("a"), None);
        assert_eq!(passed_over.take_debts().count(), 0);
        passed_over.met_dead(&record("a"), Some((3, 5)));
        assert_eq!(passed_over.take_debts().next(), Some((record("a"), gap(Some((3, 5)), GapCause::PodResumed))));
        assert_eq!(passed_over.take_debts().count(), 0);
    }
}
