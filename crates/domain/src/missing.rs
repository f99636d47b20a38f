//! What a session lacks of the stream: a stretch of it, less what it had of that before.

use std::sync::Arc;

use crate::seen::Taken;

/// What a session had of a stretch before it lacked the rest.
#[derive(Debug, Clone)]
pub enum Had {
    /// None of it.
    Nothing,
    /// All up to a sequence, but for some.
    AllUpTo {
        /// Nothing above it.
        highest: u64,
        /// Not these, in ascending order.
        except: Arc<[u64]>,
    },
    /// What its pod had taken by then.
    AsTaken(Arc<Taken>),
}

/// Events that a session lacks, as far as they are on its routes.
#[derive(Debug, Clone)]
pub struct Missing {
    /// Only those above it.
    pub after: u64,
    /// None above it; `None` while the end is open.
    pub upto: Option<u64>,
    /// Not these.
    pub had: Had,
}

impl Missing {
    /// Everything up to a sequence: whoever resumed there has it all.
    #[must_use]
    pub fn all_up_to(seq: u64) -> Self {
        Self { after: 0, upto: Some(seq), had: Had::Nothing }
    }

    /// Is this event among them, if it is on a route of the session?
    #[must_use]
    pub fn has(&self, seq: u64) -> bool {
        let is_within = seq > self.after && self.upto.is_none_or(|upto| seq <= upto);
        is_within
            && match &self.had {
                Had::Nothing => true,
                Had::AllUpTo { highest, except } => seq > *highest || except.binary_search(&seq).is_ok(),
                Had::AsTaken(taken) => !taken.has(seq),
            }
    }

    /// The same up to a sequence and no further.
    #[must_use]
    pub fn up_to(&self, seq: u64) -> Self {
        Self { upto: Some(self.upto.map_or(seq, |upto| upto.min(seq))), ..self.clone() }
    }

    /// Does it have all that `before` would have with a later end?
    #[must_use]
    pub fn goes_on_from(&self, before: &Self) -> bool {
        match (&self.had, &before.had) {
            (Had::AsTaken(one), Had::AsTaken(other)) => Arc::ptr_eq(one, other),
            (Had::Nothing, Had::Nothing) => true,
            (Had::AllUpTo { highest, except }, Had::AllUpTo { highest: before_highest, except: before_except }) => {
                (highest <= &self.after && *before_highest <= self.after)
                    || (highest == before_highest && Arc::ptr_eq(except, before_except))
            }
            _ => false,
        }
    }

    /// What is left once everything up to a sequence was read.
    #[must_use]
    pub fn past(&self, seq: u64) -> Self {
        Self { after: self.after.max(seq), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_had_is_not_missing() {
        let missing = Missing { after: 4, upto: None, had: Had::AllUpTo { highest: 9, except: [6, 8].into() } };
        let lacks = |missing: &Missing| (1..=12).filter(|seq| missing.has(*seq)).collect::<Vec<_>>();
        assert_eq!(lacks(&missing), [6, 8, 10, 11, 12]);
        assert_eq!(lacks(&missing.up_to(10)), [6, 8, 10]);
        assert_eq!(lacks(&missing.up_to(10).up_to(11).past(6)), [8, 10]);
        assert_eq!(lacks(&Missing::all_up_to(3)), [1, 2, 3]);
    }
}
