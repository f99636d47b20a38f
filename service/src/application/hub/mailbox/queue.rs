//! What waits, in the order in which it came, and which of it is the oldest.

use std::{collections::VecDeque, sync::Arc};

use super::item::Item;
use crate::application::hub::memory::Memory;

/// Of a queue up to this long, just what has to go is looked for. In a longer one that would take as long for each as the queue
/// is, so that a part of it goes at once.
const SEARCHED: usize = 256;
const PART: usize = 16;

#[derive(Debug)]
struct Waiting {
    /// Its place in the order of the stream.
    rank: u64,
    item: Item,
}

/// Items in the order in which they came; the first has its place here, so that a socket which is written as fast as events come
/// needs no other memory.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Queue {
    first: Option<Waiting>,
    /// The highest rank that came since nothing waited.
    highest: u64,
    rest: VecDeque<Waiting>,
    /// Something came behind what is younger.
    is_mixed: bool,
}

impl Queue {
    /// Bytes of one place.
    pub(super) const PLACE: usize = size_of::<Waiting>();

    /// Places that it has memory for.
    pub(super) fn capacity(&self) -> usize {
        self.rest.capacity()
    }

    /// Gives back memory that a burst has left behind; not for every item that goes.
    pub(super) fn shrink(&mut self) {
        if self.rest.capacity() > 4 * self.rest.len().max(4) {
            self.rest.shrink_to(2 * self.rest.len());
        }
    }

    /// Where what waits is counted, if any of it is.
    pub(super) fn memory(&self) -> Option<&Arc<Memory>> {
        self.first.iter().chain(&self.rest).find_map(|waiting| waiting.item.memory())
    }

    pub(super) fn into_items(self) -> impl Iterator<Item = Item> {
        self.first.into_iter().chain(self.rest).map(|waiting| waiting.item)
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Puts an item at the end. One without a sequence counts as old as the youngest that came before it.
    pub(super) fn push_back(&mut self, item: Item) {
        let rank = item.seq().unwrap_or(self.highest);
        self.is_mixed |= rank < self.highest;
        self.highest = self.highest.max(rank);
        let waiting = Waiting { rank, item };
        match self.first {
            None => self.first = Some(waiting),
            Some(_) => self.rest.push_back(waiting),
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Item> {
        std::mem::replace(&mut self.first, self.rest.pop_front()).map(|waiting| waiting.item)
    }

    /// Takes out the oldest by rank, and of equal rank what came first: at least one, towards `count`, and in a long queue that
    /// came in disorder perhaps some more. One stays in any case.
    pub(super) fn remove_oldest(&mut self, count: usize, mut sink: impl FnMut(Item)) {
        let len = self.len();
        if len < 2 {
            return;
        }
        if !self.is_mixed {
            self.pop_front().into_iter().for_each(sink);
            return;
        }
        if count <= 1 && len <= SEARCHED {
            let place = self.ranks().enumerate().min_by_key(|(place, rank)| (*rank, *place)).map_or(0, |(place, _)| place);
            self.remove(place).into_iter().for_each(sink);
            return;
        }
        let count = count.max(len / PART).clamp(1, len - 1);
        let mut places: Vec<(u64, usize)> = self.ranks().enumerate().map(|(place, rank)| (rank, place)).collect();
        // What is at `count` stays, and is older than all that stay with it.
        let (_, oldest_to_stay, _) = places.select_nth_unstable(count);
        let oldest_to_stay = *oldest_to_stay;
        let all = self.first.take().into_iter().chain(std::mem::take(&mut self.rest));
        let mut stay = VecDeque::with_capacity(len - count);
        for (place, waiting) in all.enumerate() {
            if (waiting.rank, place) < oldest_to_stay {
                sink(waiting.item);
            } else {
                stay.push_back(waiting);
            }
        }
        self.first = stay.pop_front();
        self.rest = stay;
    }

    /// Takes the last that came.
    pub(super) fn pop_back(&mut self) -> Option<Item> {
        self.rest.pop_back().or_else(|| self.first.take()).map(|waiting| waiting.item)
    }

    /// No item that waits has a higher sequence; nor any that came since nothing waited, unless it was taken from the end.
    pub(super) fn highest(&self) -> u64 {
        if self.first.is_some() { self.highest } else { 0 }
    }

    /// Looks anew for the highest that waits, after some were taken from the end.
    pub(super) fn note_highest(&mut self) {
        self.highest = self.ranks().max().unwrap_or(0);
    }

    /// The sequences of all events that wait and have one.
    pub(super) fn seqs(&self) -> impl Iterator<Item = u64> {
        self.first.iter().chain(&self.rest).filter_map(|waiting| waiting.item.seq())
    }

    fn ranks(&self) -> impl Iterator<Item = u64> {
        self.first.iter().chain(&self.rest).map(|waiting| waiting.rank)
    }

    fn remove(&mut self, place: usize) -> Option<Item> {
        match place.checked_sub(1) {
            None => self.pop_front(),
            Some(behind) => self.rest.remove(behind).map(|waiting| waiting.item),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use daisi_ws_domain::gap::{Gap, GapCause};

    use super::*;
    use crate::application::hub::prepared_message::PreparedMessage;

    fn event(seq: u64) -> Item {
        Item::Event(Arc::new(PreparedMessage::of_text(seq, "x")))
    }

    fn queue_of(seqs: impl IntoIterator<Item = u64>) -> Queue {
        let mut queue = Queue::default();
        seqs.into_iter().for_each(|seq| queue.push_back(event(seq)));
        queue
    }

    fn all(mut queue: Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop_front()).map(|item| item.seq().unwrap_or(0)).collect()
    }

    #[test]
    fn the_oldest_by_sequence_goes_and_the_rest_keeps_the_order_in_which_it_came() {
        let mut queue = queue_of([5, 9, 3, 7, 4]);
        let mut gone = Vec::new();
        for _ in 0..3 {
            queue.remove_oldest(1, |item| gone.push(item.seq().unwrap()));
        }
        assert_eq!((gone, all(queue)), (vec![3, 4, 5], vec![9, 7]));
    }

    #[test]
    fn what_has_no_sequence_goes_with_what_came_before_it() {
        let mut queue = queue_of([5]);
        queue.push_back(Item::Gap(Box::new(Gap::unknown(GapCause::GivenUp))));
        for seq in [9, 0, 3] {
            queue.push_back(event(seq));
        }
        let mut gone = Vec::new();
        for _ in 0..4 {
            queue.remove_oldest(1, |item| gone.push(item));
        }
        let seqs: Vec<_> = gone.iter().map(Item::seq).collect();
        assert_eq!(seqs, [Some(3), Some(5), None, Some(9)]);
        assert!(matches!(gone[2], Item::Gap(_)));
        assert_eq!(all(queue), [0]);
    }

    #[test]
    fn from_a_long_queue_a_part_goes_at_once_and_none_of_it_is_younger_than_what_stays() {
        // Two pods, one of them a thousand events behind.
        let mut queue = queue_of((0..2000_u64).map(|n| if n % 2 == 0 { 1000 + n } else { n }));
        let mut gone = Vec::new();
        queue.remove_oldest(1, |item| gone.push(item.seq().unwrap()));
        assert_eq!(gone.len(), 2000 / PART);
        let stayed = all(queue);
        assert!(gone.iter().max() < stayed.iter().min());
        assert_eq!(gone.len() + stayed.len(), 2000);
    }

    #[test]
    fn just_so_many_go_as_are_asked_for_and_one_stays() {
        let mut queue = queue_of([8, 7, 6, 5, 4, 3, 2, 1]);
        queue.remove_oldest(5, |_| {});
        assert_eq!(queue.len(), 3);
        queue.remove_oldest(100, |_| {});
        queue.remove_oldest(100, |_| {});
        assert_eq!(all(queue), [8]);
    }
}
