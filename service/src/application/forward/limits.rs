//! What the consumer's limits leave for each peer.

use std::time::Duration;

use crate::ports::SourceLimits;

/// What the consumer's limits mean for forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardLimits {
    /// An event must be handed over, or parked, within this time since it was pulled: half the ack wait.
    pub budget: Duration,
    /// Events that may be unsettled in this pod for one peer that can't be reached: queued, in a call, or parked.
    pub peer: usize,
    /// The same for one that has only just stopped to answer.
    pub slow: usize,
    /// The same for all that can't be reached together.
    pub all: usize,
    /// Other pods of the fleet.
    pub peers: usize,
}

impl ForwardLimits {
    /// This pod's part of the consumer's limits. `share`: events that may be unsettled for one unreachable peer over the whole
    /// fleet.
    ///
    /// For one peer a pod has twice an equal part: redeliveries do not spread evenly, and an event given up too early is a gap
    /// that nobody needed. All unreachable peers together have half of what may be unsettled, in equal parts: the other half
    /// stays with those that are well, however many are not.
    #[must_use]
    pub fn of(source: SourceLimits, share: usize, fleet: usize) -> Self {
        let half = source.max_ack_pending / 2;
        let part = |of: usize| (of.saturating_mul(2) / fleet.max(1)).min(of).max(1);
        Self {
            budget: source.ack_wait / 2,
            peer: part(share),
            slow: part(half.max(share)),
            all: (half / fleet.max(1)).max(1),
            peers: fleet.saturating_sub(1),
        }
    }

    /// An event not settled within this time is delivered again.
    #[must_use]
    pub fn ack_wait(&self) -> Duration {
        self.budget * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g2_the_peers_that_cannot_be_reached_never_have_more_than_half_of_what_may_be_unsettled() {
        let source = SourceLimits { ack_wait: Duration::from_secs(10), max_ack_pending: 5000 };
        for fleet in 1..=100 {
            let limits = ForwardLimits::of(source, 500, fleet);
            assert!(limits.all * fleet <= 2500 && limits.peer <= 500 && limits.slow <= 2500, "{fleet}: {limits:?}");
            // Every pod but the silent one, full: the others have the rest.
            assert!(limits.slow * (fleet - 1) <= 4950, "{fleet}: {limits:?}");
        }
        assert_eq!(
            ForwardLimits::of(source, 500, 3),
            ForwardLimits { budget: source.ack_wait / 2, peer: 333, slow: 1666, all: 833, peers: 2 }
        );
    }
}
