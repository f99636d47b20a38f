//! Events in doubt: on one of their routes stands a pod that may live and whose address nobody here knows.

use std::{cmp::Reverse, collections::BinaryHeap};

use tokio::time::Instant;

use crate::application::forward::in_flight::{SOON_TIMES, TargetOutcome, retry_delay};

/// So often an event may come again whatever is in doubt beside it: by then a pod that is new, or about to announce itself, is
/// known.
const FREE_DELIVERIES: u64 = SOON_TIMES + 2;

/// What was given back to the stream for such pods. They are bounded as one peer is: whatever stands on routes must not stall the
/// fleet.
#[derive(Debug, Default)]
pub(super) struct UnknownMembers {
    /// Until when each of them counts: then the stream delivers it again.
    parked: BinaryHeap<Reverse<Instant>>,
}

impl UnknownMembers {
    /// What becomes of an event's share for such a pod, if so many may be parked and each delivered so often.
    pub(super) fn outcome(&mut self, seq: u64, deliveries: u64, max_deliveries: u64, max_parked: usize) -> TargetOutcome {
        let now = Instant::now();
        while self.parked.peek().is_some_and(|Reverse(until)| *until <= now) {
            self.parked.pop();
        }
        if deliveries >= max_deliveries || (deliveries > FREE_DELIVERIES && self.parked.len() >= max_parked) {
            return TargetOutcome::GivenUp;
        }
        self.parked.push(Reverse(now + retry_delay(deliveries, seq)));
        TargetOutcome::Parked
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn doubts_are_bounded_in_number_and_in_tries() {
        let mut unknown_members = UnknownMembers::default();
        for _ in 0..3 {
            assert_eq!(unknown_members.outcome(1, FREE_DELIVERIES + 1, 20, 3), TargetOutcome::Parked);
        }
        assert_eq!(unknown_members.outcome(1, FREE_DELIVERIES + 1, 20, 3), TargetOutcome::GivenUp);
        assert_eq!(unknown_members.outcome(1, 1, 20, 3), TargetOutcome::Parked, "a pod may be about to announce itself");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(unknown_members.outcome(1, 19, 20, 3), TargetOutcome::Parked);
        assert_eq!(unknown_members.outcome(1, 20, 20, 3), TargetOutcome::GivenUp);
    }
}
