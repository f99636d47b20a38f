//! What a client missed: the range of sequences, as far as it is known.

/// Events that a session should have had and did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// How many; `None` where nobody can know (the pod was frozen while events were routed past it).
    pub dropped: Option<u64>,
    /// Lowest sequence lost; `None` where nobody knows.
    pub first_seq: Option<u64>,
    /// Highest sequence lost; `None` where nobody knows.
    pub last_seq: Option<u64>,
    /// The `reason` in the frame.
    pub cause: GapCause,
}

crate::words! {
    /// Why events were lost; the closed set behind the `cause` label and the notice's `reason`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum GapCause {
        /// The client did not read, and its mailbox was full.
        SlowClient = "slow_client",
        /// The events could not be brought to this pod in time.
        GivenUp = "given_up",
        /// This pod was frozen, or taken for dead, and events were routed past it.
        PodResumed = "pod_resumed",
    }
}

impl Gap {
    /// One lost event. Sequences begin at 1: an event of an old pod has none, and is lost somewhere.
    #[must_use]
    pub fn of(seq: u64, cause: GapCause) -> Self {
        let seq = (seq > 0).then_some(seq);
        Self { dropped: Some(1), first_seq: seq, last_seq: seq, cause }
    }

    /// An unknown number of lost events.
    #[must_use]
    pub fn unknown(cause: GapCause) -> Self {
        Self { dropped: None, first_seq: None, last_seq: None, cause }
    }

    /// Both gaps as one: counts add up, ranges span. What one of them does not know, both together don't: a range that leaves a
    /// part out would have a client look for everything in it. The cause stays that of `self`.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            dropped: self.dropped.zip(other.dropped).map(|(a, b)| a.saturating_add(b)),
            first_seq: self.first_seq.zip(other.first_seq).map(|(a, b)| a.min(b)),
            last_seq: self.last_seq.zip(other.last_seq).map(|(a, b)| a.max(b)),
            cause: self.cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_gaps_count_up_and_span_their_range() {
        let merged = Gap::of(45, GapCause::SlowClient).merge(Gap::of(41, GapCause::SlowClient));
        assert_eq!((merged.dropped, merged.first_seq, merged.last_seq), (Some(2), Some(41), Some(45)));
        let merged = merged.merge(Gap::unknown(GapCause::PodResumed));
        assert_eq!(merged, Gap::unknown(GapCause::SlowClient));
    }

    #[test]
    fn an_event_without_a_sequence_counts_and_leaves_the_range_unknown_in_whatever_order_gaps_are_merged() {
        let (known, unsequenced) = (Gap::of(41, GapCause::SlowClient), Gap::of(0, GapCause::SlowClient));
        assert_eq!((unsequenced.dropped, unsequenced.first_seq, unsequenced.last_seq), (Some(1), None, None));
        for merged in [known.merge(unsequenced), unsequenced.merge(known)] {
            assert_eq!((merged.dropped, merged.first_seq, merged.last_seq), (Some(2), None, None));
        }
    }
}
