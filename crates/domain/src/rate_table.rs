//! Rates of many keys, in a table of bounded size.
//!
//! Of each key only one moment is kept: when its burst will be whole again. A key whose moment has passed owes nothing and needs
//! no entry. When the table is full, the entry that owes the least makes room, which loses the least: nobody is refused for want
//! of room, and who wants his own entry gone has to owe less than all others.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, Hash},
    time::{Duration, Instant},
};

use crate::maps::{HashKeys, Map};

/// So many in a second or minute, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How long it takes to earn one.
    each: Duration,
    burst: u32,
}

impl Rate {
    /// `count` in `period` in the long run, `burst` at once. None if the count is 0: no limit.
    #[must_use]
    pub fn new(count: u32, period: Duration, burst: u32) -> Option<Self> {
        (count > 0).then(|| Self { each: period / count, burst: burst.max(1) })
    }

    /// What a whole burst owes.
    fn burst_time(self) -> Duration {
        self.each.saturating_mul(self.burst)
    }
}

/// The keys that owe something. Keys are kept as hashes under a secret of the table's own: two that meet share an entry, and
/// nobody can make them meet.
#[derive(Debug)]
pub struct RateTable {
    capacity: usize,
    hasher: HashKeys,
    whole_at: Map<u64, Instant>,
    by_debt: BTreeSet<(Instant, u64)>,
}

impl RateTable {
    /// An empty table for so many keys, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), hasher: HashKeys::default(), whole_at: Map::default(), by_debt: BTreeSet::new() }
    }

    /// Takes one of the key's.
    ///
    /// # Errors
    /// How long to wait, when it has none left. Then nothing is taken.
    pub fn take(&mut self, key: &impl Hash, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.check(key, rate, now)?;
        self.charge(key, rate, now);
        Ok(())
    }

    /// Has the key one left?
    ///
    /// # Errors
    /// How long to wait, when it has none.
    pub fn check(&self, key: &impl Hash, rate: Rate, now: Instant) -> Result<(), Duration> {
        let debt = self.debt(self.hasher.hash_one(key), now).saturating_add(rate.each);
        let over = debt.saturating_sub(rate.burst_time());
        if over.is_zero() { Ok(()) } else { Err(over) }
    }

    /// Takes one of the key's, also one that it has not; it never owes more than a burst.
    pub fn charge(&mut self, key: &impl Hash, rate: Rate, now: Instant) {
        let key = self.hasher.hash_one(key);
        let debt = self.debt(key, now).saturating_add(rate.each).min(rate.burst_time());
        self.set(key, now + debt, now);
    }

    /// Gives back one that was charged, as what it was for did not happen; a key never has more than its burst.
    pub fn give_back(&mut self, key: &impl Hash, rate: Rate, now: Instant) {
        let key = self.hasher.hash_one(key);
        if let Some(at) = self.whole_at.get(&key) {
            self.set(key, at.checked_sub(rate.each).unwrap_or(now), now);
        }
    }

    /// How many keys have an entry.
    #[must_use]
    pub fn len(&self) -> usize {
        self.whole_at.len()
    }

    /// Does nobody owe anything, as far as is known?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole_at.is_empty()
    }

    fn debt(&self, key: u64, now: Instant) -> Duration {
        self.whole_at.get(&key).map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    fn set(&mut self, key: u64, at: Instant, now: Instant) {
        if let Some(before) = self.whole_at.remove(&key) {
            self.by_debt.remove(&(before, key));
        }
        if at <= now {
            return;
        }
        // Two at a time: the table shrinks again when many have paid.
        for _ in 0..2 {
            let Some(&(least, of)) = self.by_debt.first() else { break };
            if least <= now || self.whole_at.len() >= self.capacity {
                self.by_debt.remove(&(least, of));
                self.whole_at.remove(&of);
            }
        }
        self.whole_at.insert(key, at);
        self.by_debt.insert((at, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        crate::a_moment()
    }

    fn per_second(count: u32, burst: u32) -> Rate {
        Rate::new(count, Duration::from_secs(1), burst).unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_only_the_rate() {
        let (mut table, now, rate) = (RateTable::new(8), start(), per_second(10, 20));
        assert_eq!((0..100).filter(|_| table.take(&"a", rate, now).is_ok()).count(), 20);
        assert_eq!(table.take(&"a", rate, now), Err(Duration::from_millis(100)), "when the next one is there");
        assert_eq!(table.take(&"b", rate, now), Ok(()), "another key is another matter");
        let later = now + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| table.take(&"a", rate, later).is_ok()).count(), 5);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let (mut table, now, rate) = (RateTable::new(8), start(), per_second(1, 2));
        assert!(table.take(&"a", rate, now).is_ok() && table.take(&"a", rate, now).is_ok());
        table.give_back(&"a", rate, now);
        assert!(table.take(&"a", rate, now).is_ok() && table.take(&"a", rate, now).is_err());
        table.give_back(&"nobody", rate, now);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn nobody_owes_more_than_a_burst() {
        let (mut table, now, rate) = (RateTable::new(8), start(), per_second(1, 5));
        (0..1000).for_each(|_| table.charge(&"a", rate, now));
        assert_eq!(table.check(&"a", rate, now), Err(Duration::from_secs(1)));
        assert_eq!(table.check(&"a", rate, now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_full_table_refuses_no_stranger_and_does_not_forget_who_owes_most() {
        let (mut table, now, rate) = (RateTable::new(100), start(), per_second(1, 10));
        (0..10).for_each(|_| table.charge(&"attacker", rate, now));
        for stranger in 0..10_000 {
            assert_eq!(table.take(&stranger, rate, now), Ok(()));
        }
        assert_eq!(table.len(), 100);
        assert!(table.take(&"attacker", rate, now).is_err(), "he filled the table and is still known");
    }

    #[test]
    fn who_owes_nothing_any_more_has_no_entry() {
        let (mut table, now, rate) = (RateTable::new(1000), start(), per_second(1, 1));
        (0..100).for_each(|key| table.charge(&key, rate, now));
        let later = now + Duration::from_secs(2);
        (1000..1100).for_each(|key| table.charge(&key, rate, later));
        assert_eq!(table.len(), 100);
    }

    #[test]
    fn a_rate_of_none_is_no_limit() {
        assert_eq!(Rate::new(0, Duration::from_secs(1), 5), None);
    }
}
