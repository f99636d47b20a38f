//! What one socket got, against what it should have got: events for it are numbered from 0 without a hole.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The account of one socket. As long as events come in order it is two numbers.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The lowest number that was never due before.
    next: u32,
    /// Numbers below `next` that did not come yet.
    missing: BTreeSet<u32>,
    doubled: u32,
    disordered: u32,
}

/// What went wrong, of one socket or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// Events that never came.
    pub(crate) lost: u64,
    /// Events that came once more.
    pub(crate) doubled: u64,
    /// Events that came after a later one.
    pub(crate) disordered: u64,
}

impl Ledger {
    /// Of a socket that is owed the events from this number.
    pub(crate) fn starting_at(first: u32) -> Self {
        Self { next: first, ..Self::default() }
    }

    /// Notes that an event came.
    pub(crate) fn note(&mut self, number: u32) {
        if number == self.next {
            self.next += 1;
        } else if number > self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.disordered += 1;
        } else {
            self.doubled += 1;
        }
    }

    /// The account, if the events below `published` were sent.
    pub(crate) fn faults(&self, published: u32) -> Faults {
        let never_due = u64::from(published.saturating_sub(self.next));
        let missing = self.missing.range(..published).count() as u64;
        Faults { lost: missing + never_due, doubled: self.doubled.into(), disordered: self.disordered.into() }
    }
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(numbers: &[u32], published: u32) -> (u64, u64, u64) {
        let mut ledger = Ledger::default();
        numbers.iter().for_each(|number| ledger.note(*number));
        let Faults { lost, doubled, disordered } = ledger.faults(published);
        (lost, doubled, disordered)
    }

    #[test]
    fn events_in_order_leave_no_fault() {
        assert_eq!(faults(&[0, 1, 2, 3], 4), (0, 0, 0));
    }

    #[test]
    fn an_event_that_never_came_is_lost_wherever_it_was_due() {
        assert_eq!(faults(&[1, 2, 3], 4), (1, 0, 0));
        assert_eq!(faults(&[0, 2, 3], 4), (1, 0, 0));
        assert_eq!(faults(&[0, 1], 4), (2, 0, 0));
        assert_eq!(faults(&[], 4), (4, 0, 0));
    }

    #[test]
    fn an_event_that_came_again_is_doubled_and_not_out_of_order() {
        assert_eq!(faults(&[0, 1, 1, 0, 2], 3), (0, 2, 0));
    }

    #[test]
    fn what_was_published_before_a_socket_came_is_not_owed_to_it() {
        let mut ledger = Ledger::starting_at(5);
        [5, 6, 4].into_iter().for_each(|number| ledger.note(number));
        assert_eq!(ledger.faults(8), Faults { lost: 1, doubled: 1, disordered: 0 });
    }

    #[test]
    fn an_event_that_came_late_is_out_of_order_and_not_lost() {
        assert_eq!(faults(&[1, 0, 2], 3), (0, 0, 1));
        assert_eq!(faults(&[3, 0, 0], 4), (2, 1, 1));
    }
}
