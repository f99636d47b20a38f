//! How quiet it was for a session while it moved from one socket to another.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    lateness::{milliseconds, p99},
    socket::{Socket, sockets},
};
use crate::{
    identity::Who,
    traffic::{
        evidence::Evidence,
        ledger::{Ledger, Seen},
    },
};

/// So long after the end of a first socket a silence counts as the move's: what the second had yet to bring is there by then.
const AFTER: Duration = Duration::from_millis(500);
/// The end of a run, in which nothing is done to the fleet any more.
const CALM: Duration = Duration::from_secs(5);
/// Milliseconds without an event that are noise: on a machine that does all at once, three turns of a session's publisher.
const NOISE_MS: u64 = 100;

/// Sessions that moved, and the longest silence of users' sessions around each move: from the request to shortly after the end of
/// the first socket. In milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// First sockets that were closed because a second had the session.
    pub moved: usize,
    /// The median of the silences.
    pub median_ms: Option<u64>,
    /// Their 99th percentile.
    pub p99_ms: Option<u64>,
    /// The longest.
    pub worst_ms: Option<u64>,
    /// The 99th percentile, over users' sessions, of the longest silence when all was calm again.
    pub calm_p99_ms: Option<u64>,
}

impl Moves {
    pub(super) fn of(evidence: &Evidence) -> Self {
        let mut moves = Self::default();
        let (mut silences, mut calm) = (Vec::new(), Vec::new());
        for ledger in &evidence.ledgers {
            let sockets = sockets(ledger);
            moves.moved += ledger.entries.iter().filter(|entry| entry.seen == Seen::Moved).count();
            if matches!(ledger.who, Who::User { .. }) {
                silences.extend(sockets.iter().filter_map(Socket::move_time).map(|(from, to)| silence(ledger, from, to)));
                calm.push(silence(ledger, evidence.ended - CALM, evidence.ended));
            }
        }
        silences.sort_unstable();
        moves.median_ms = silences.get(silences.len() / 2).copied().map(milliseconds);
        moves.worst_ms = silences.last().copied().map(milliseconds);
        moves.p99_ms = p99(silences);
        moves.calm_p99_ms = p99(calm);
        moves
    }

    /// Were all but a hundredth of the moves as quiet as it was without any: at most twice that, or too short to be told from
    /// noise?
    #[must_use]
    pub fn are_smooth(&self) -> bool {
        self.p99_ms.zip(self.calm_p99_ms).is_some_and(|(moving, calm)| moving <= (2 * calm).max(NOISE_MS))
    }
}

impl Socket<'_> {
    /// When it moved: from the request to shortly after its end.
    fn move_time(&self) -> Option<(Instant, Instant)> {
        self.asked.zip(self.ended).map(|(asked, ended)| (asked, ended + AFTER))
    }
}

/// The longest time between two events of a session that reaches into this.
fn silence(ledger: &Ledger, from: Instant, to: Instant) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, from);
    for at in ledger.entries.iter().filter(|entry| matches!(entry.seen, Seen::Event { .. })).map(|entry| entry.at) {
        if at > from {
            longest = longest.max(at.saturating_duration_since(last));
        }
        if at > to {
            return longest;
        }
        last = at;
    }
    longest.max(to.saturating_duration_since(last))
}
