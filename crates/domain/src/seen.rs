//! Which events this pod took, so that a redelivery is recognised however late it comes.

use std::{collections::BTreeMap, time::Duration};

use crate::event::StreamId;

/// Sequences of one page, which is half a kilobyte.
const PAGE: u64 = 4096;
const WORDS: usize = (PAGE / 64) as usize;
/// Pages that are kept at most: eight megabytes, or 67 million sequences above the floor, which is an hour of 18,000 events a
/// second with one event that nobody settles. An event is given up long before.
pub const MAX_PAGES: usize = 16_384;

/// Pages below the floor that are kept all the same: a gap of events that were given up may be told later than they are settled.
const KEPT_BELOW: u64 = 64;

/// One bit a sequence.
#[derive(Debug, Clone)]
struct Page([u64; WORDS]);

impl Page {
    fn bit(seq: u64) -> (usize, u64) {
        let place = seq % PAGE;
        // Less than the number of words.
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn has(&self, seq: u64) -> bool {
        let (word, bit) = Self::bit(seq);
        self.0[word] & bit != 0
    }

    fn set(&mut self, seq: u64) {
        let (word, bit) = Self::bit(seq);
        self.0[word] |= bit;
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// The events that some socket of this pod has taken, by stream and sequence: all that can still come again.
///
/// Everything up to the *floor* is settled, which means that every live target took it or was told that it goes without: what
/// comes of it once more (from a pod that was frozen) is a redelivery, no matter who took it. Above the floor there is one bit a
/// sequence. So no rate of events, and no delay, makes the set forget what may come again; only [`MAX_PAGES`] does.
///
/// A server that crashed and came back without its last events gives their sequences to others. Times tell: what has a sequence
/// that was given out before and was stored later than everything that is known is another event.
#[derive(Debug)]
pub struct SeenEvents {
    stream: Option<StreamId>,
    pages: BTreeMap<u64, Box<Page>>,
    max_pages: usize,
    /// Highest sequence taken.
    highest: u64,
    /// When the latest event that was taken was stored.
    latest: Duration,
    /// All up to this sequence are settled.
    floor: u64,
    /// When that was read, by the stream's clock.
    floor_at: Duration,
    /// What this pod took of everything above this sequence may still be asked for.
    confirmed: u64,
    /// What was taken up to this sequence is not remembered.
    forgotten: u64,
}

/// What was taken of a stretch of the stream, as of one moment.
#[derive(Debug, Clone)]
pub struct Taken {
    pages: BTreeMap<u64, Box<Page>>,
}

impl Taken {
    /// Was this event taken?
    #[must_use]
    pub fn has(&self, seq: u64) -> bool {
        self.pages.get(&(seq / PAGE)).is_some_and(|page| page.has(seq))
    }
}

impl Default for SeenEvents {
    fn default() -> Self {
        Self::bounded(MAX_PAGES)
    }
}

impl SeenEvents {
    fn bounded(max_pages: usize) -> Self {
        Self {
            stream: None,
            pages: BTreeMap::new(),
            max_pages,
            highest: 0,
            latest: Duration::ZERO,
            floor: 0,
            floor_at: Duration::ZERO,
            confirmed: 0,
            forgotten: 0,
        }
    }

    /// Was this event taken here before, or is it settled? A stream made anew starts from nothing.
    #[must_use]
    pub fn contains(&self, stream: StreamId, seq: u64, stored_at: Duration) -> bool {
        if self.stream != Some(stream) || self.is_another(seq, stored_at) {
            return false;
        }
        if seq <= self.floor {
            return stored_at <= self.floor_at;
        }
        self.pages.get(&(seq / PAGE)).is_some_and(|page| page.has(seq))
    }

    /// Remembers an event. How many others had to be forgotten to make room. An event of an unknown stream has no sequence to
    /// know it by and is not remembered: it would pass for a stream made anew and empty the set.
    pub fn insert(&mut self, stream: StreamId, seq: u64, stored_at: Duration) -> u64 {
        if stream == StreamId::UNKNOWN {
            return 0;
        }
        if self.stream != Some(stream) || self.is_another(seq, stored_at) {
            *self = Self { stream: Some(stream), ..Self::bounded(self.max_pages) };
        }
        if seq <= self.floor {
            if stored_at <= self.floor_at {
                return 0;
            }
            // The floor is that of events which are no more.
            self.floor = seq.saturating_sub(1);
        }
        self.highest = self.highest.max(seq);
        self.latest = self.latest.max(stored_at);
        self.pages.entry(seq / PAGE).or_insert_with(|| Box::new(Page([0; WORDS]))).set(seq);
        self.make_room()
    }

    /// Notes that everything up to `seq` is settled, as read at `at` by the stream's clock, and lets go of it. The floor never
    /// falls: a consumer made anew may begin further back, with events that were settled before.
    pub fn settled_up_to(&mut self, stream: StreamId, seq: u64, at: Duration) {
        if stream == StreamId::UNKNOWN {
            return;
        }
        if self.stream != Some(stream) {
            *self = Self { stream: Some(stream), ..Self::bounded(self.max_pages) };
        }
        if seq < self.floor {
            return;
        }
        (self.floor, self.floor_at) = (seq, self.floor_at.max(at));
        self.let_go();
    }

    /// Notes that up to this sequence this pod was handed all that its sessions should have: nobody will ask what it took of that,
    /// but for a while.
    pub fn confirmed_up_to(&mut self, stream: StreamId, seq: u64) {
        if self.stream == Some(stream) {
            self.confirmed = self.confirmed.max(seq);
            self.let_go();
        }
    }

    /// What was taken after a sequence and up to another, as of now. `None` if that is not remembered.
    #[must_use]
    pub fn taken_between(&self, stream: StreamId, after: u64, upto: u64) -> Option<Taken> {
        if self.stream != Some(stream) || after < self.forgotten || upto < after {
            return None;
        }
        let pages = self.pages.range(after / PAGE..=upto / PAGE).map(|(number, page)| (*number, page.clone())).collect();
        Some(Taken { pages })
    }

    /// Lets go of what is settled, and of which nobody will ask any more. The page of the floor's own successor stays.
    fn let_go(&mut self) {
        let page = |seq: u64| seq.saturating_add(1) / PAGE;
        let end = page(self.floor).saturating_sub(KEPT_BELOW).min(page(self.confirmed));
        while let Some(first) = self.pages.first_entry()
            && *first.key() < end
        {
            first.remove();
        }
        self.forgotten = self.forgotten.max((end * PAGE).saturating_sub(1));
    }

    fn is_another(&self, seq: u64, stored_at: Duration) -> bool {
        seq <= self.highest && stored_at > self.latest
    }

    fn make_room(&mut self) -> u64 {
        let mut forgotten = 0;
        while self.pages.len() > self.max_pages
            && let Some((number, page)) = self.pages.pop_first()
        {
            self.forgotten = self.forgotten.max(number.saturating_add(1).saturating_mul(PAGE) - 1);
            forgotten += page.count();
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const STREAM: StreamId = StreamId(1);
    const T: Duration = Duration::from_secs(1);

    #[test]
    fn no_number_of_other_events_makes_it_forget_one_that_is_not_settled() {
        let mut seen = SeenEvents::default();
        seen.settled_up_to(STREAM, 4, T);
        seen.insert(STREAM, 5, T);
        for seq in 6..500_000 {
            seen.insert(STREAM, seq, T);
        }
        assert!(seen.contains(STREAM, 5, T) && !seen.contains(STREAM, 500_000, T));
        assert!(seen.pages.len() <= 500_000 / 4096 + 1);
    }

    #[test]
    fn what_is_settled_and_confirmed_costs_little_memory_and_counts_as_taken() {
        let mut seen = SeenEvents::default();
        for seq in 1..=1_000_000 {
            seen.insert(STREAM, seq, T);
        }
        seen.settled_up_to(STREAM, 999_990, 2 * T);
        assert_eq!(seen.pages.len() as u64, 1_000_000 / PAGE + 1, "nobody has said that it is not asked for");
        seen.confirmed_up_to(STREAM, 999_990);
        assert_eq!(seen.pages.len() as u64, KEPT_BELOW + 1);
        assert!(seen.contains(STREAM, 7, T) && seen.contains(STREAM, 999_995, T) && !seen.contains(STREAM, 1_000_001, T));
    }

    #[test]
    fn what_was_taken_is_known_until_it_is_confirmed_and_a_while_longer_and_no_answer_is_given_of_what_is_forgotten() {
        let mut seen = SeenEvents::default();
        for seq in (2..=600_000).step_by(2) {
            seen.insert(STREAM, seq, T);
        }
        seen.settled_up_to(STREAM, 600_000, 2 * T);
        let taken = seen.taken_between(STREAM, 1, u64::MAX).unwrap();
        assert!(taken.has(2) && !taken.has(3) && taken.has(600_000) && !taken.has(600_001));
        seen.confirmed_up_to(STREAM, 600_000);
        assert!(
            seen.taken_between(STREAM, 1, u64::MAX).is_none() && seen.taken_between(StreamId(2), 600_000, u64::MAX).is_none()
        );
        let taken = seen.taken_between(STREAM, 600_000 - KEPT_BELOW * PAGE, u64::MAX).unwrap();
        assert!(taken.has(599_998) && !taken.has(599_999));
    }

    #[test]
    fn a_consumer_that_begins_again_further_back_does_not_make_it_forget() {
        let mut seen = SeenEvents::default();
        seen.settled_up_to(STREAM, 1000, 2 * T);
        seen.settled_up_to(STREAM, 10, 3 * T);
        assert!(seen.contains(STREAM, 900, T));
    }

    #[test]
    fn an_event_of_an_unknown_stream_is_not_remembered_and_empties_nothing() {
        let mut seen = SeenEvents::default();
        seen.insert(STREAM, 1, T);
        seen.insert(StreamId::UNKNOWN, 0, T);
        seen.settled_up_to(StreamId::UNKNOWN, 9, T);
        assert!(seen.contains(STREAM, 1, T) && !seen.contains(StreamId::UNKNOWN, 0, T));
    }

    #[test]
    fn a_stream_made_anew_is_not_mistaken_for_a_redelivery() {
        let mut seen = SeenEvents::default();
        seen.insert(STREAM, 1, T);
        seen.settled_up_to(STREAM, 100, 2 * T);
        assert!(!seen.contains(StreamId(2), 1, T));
        seen.insert(StreamId(2), 9, T);
        assert!(!seen.contains(STREAM, 1, T) && !seen.contains(StreamId(2), 1, T));
    }

    #[test]
    fn sequences_given_out_a_second_time_by_a_server_that_went_back_are_other_events() {
        let mut seen = SeenEvents::default();
        for seq in 90..=100 {
            seen.insert(STREAM, seq, T);
        }
        // It came back with the first 95, and others took the next ones.
        for seq in [98, 97, 99, 100] {
            assert!(!seen.contains(STREAM, seq, 5 * T + Duration::from_secs(seq)), "{seq}");
            seen.insert(STREAM, seq, 5 * T + Duration::from_secs(seq));
        }
        assert!(seen.contains(STREAM, 98, 5 * T + Duration::from_secs(98)));
    }

    #[test]
    fn what_is_stored_after_the_floor_was_read_is_not_below_it() {
        let mut seen = SeenEvents::default();
        seen.settled_up_to(STREAM, 100, 3 * T);
        assert!(seen.contains(STREAM, 90, T) && !seen.contains(STREAM, 90, 4 * T));
        seen.insert(STREAM, 90, 4 * T);
        assert!(seen.contains(STREAM, 90, 4 * T) && !seen.contains(STREAM, 91, 5 * T));
    }

    #[test]
    fn past_its_bound_the_oldest_go_and_are_counted() {
        let mut seen = SeenEvents::bounded(2);
        assert_eq!([1, 2, PAGE].map(|seq| seen.insert(STREAM, seq, T)), [0, 0, 0]);
        assert_eq!(seen.insert(STREAM, 9 * PAGE, T), 2);
        assert!(!seen.contains(STREAM, 1, T) && seen.contains(STREAM, PAGE, T) && seen.contains(STREAM, 9 * PAGE, T));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u64),
        Settle(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let seq = prop_oneof![1..30_u64, 4090..4100_u64, 1..40_000_u64];
        prop_oneof![4 => seq.clone().prop_map(Step::Take), 1 => seq.prop_map(Step::Settle)]
    }

    proptest! {
        #[test]
        fn it_knows_what_a_set_of_all_that_was_taken_or_settled_knows(steps in prop::collection::vec(step(), 0..200), asked in 1..40_000_u64) {
            let (mut seen, mut all, mut floor) = (SeenEvents::default(), HashSet::new(), None);
            for step in steps {
                match step {
                    Step::Take(seq) => {
                        prop_assert_eq!(seen.insert(STREAM, seq, T), 0);
                        all.insert(seq);
                    }
                    Step::Settle(seq) => {
                        seen.settled_up_to(STREAM, seq, T);
                        floor = floor.max(Some(seq));
                    }
                }
            }
            let known = |seq: u64| all.contains(&seq) || floor.is_some_and(|floor| seq <= floor);
            for seq in all.iter().copied().chain([asked]).chain(floor) {
                prop_assert_eq!(seen.contains(STREAM, seq, T), known(seq), "{}", seq);
            }
        }
    }
}
