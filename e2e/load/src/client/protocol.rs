//! What the conductor asks of a client process, and the answers: JSON, a line each, one answer an order.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::ledger::Faults;
use crate::samples::Buckets;

/// A group of sockets that are opened, asked about and closed together.
pub(crate) type SetId = u32;

/// How sockets are spread over desks (company and agent): an event for a desk goes to all of its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Desks {
    /// All are on one.
    Shared,
    /// Each has its own.
    Own,
}

/// A wish.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Open sockets; answered with [`Reply::Done`] when each is ready or has failed.
    Open(Opening),
    /// Wait until this many events came in since the process began, over all sockets.
    Expect {
        /// Events.
        deliveries: u64,
        /// Longest wait.
        timeout_ms: u64,
    },
    /// Wait until this many sockets of a set are closed.
    ExpectClosed {
        /// Which.
        set: SetId,
        /// Sockets.
        sockets: u64,
        /// Longest wait.
        timeout_ms: u64,
    },
    /// Begin to count latencies anew.
    Reset,
    /// Tell about a set.
    Report {
        /// Which.
        set: SetId,
        /// Events that were published for its sockets.
        published: Published,
    },
    /// Close every socket of a set at once, without a word, as a lost network does.
    Drop {
        /// Which.
        set: SetId,
    },
    /// Stop reading from the first so many sockets of a set.
    Pause {
        /// Which.
        set: SetId,
        /// Sockets.
        sockets: u32,
    },
    /// Read again from all of them.
    Unpause {
        /// Which.
        set: SetId,
    },
    /// Have every socket of a set that follows the stream ask where it stands, until all have what is up to `sequence` behind
    /// them.
    Locate {
        /// Which.
        set: SetId,
        /// Of the stream.
        sequence: u64,
        /// Longest wait.
        timeout_ms: u64,
    },
}

/// What sockets bring along when they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Arrival {
    /// Nothing, and they do not care where they are in the stream. Events for them are numbered from 0.
    #[default]
    New,
    /// Nothing, but they note where they are from now on. Events for them are numbered from `first`.
    Following {
        /// Of the next event.
        first: u32,
    },
    /// The place where they were when their set was dropped. They are owed the events since.
    Returning {
        /// The number of the first of those.
        first: u32,
        /// How many.
        missed: u32,
    },
}

/// How many events were published for the sockets of a set.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Published {
    /// So many for each of them.
    Each(u32),
    /// So many in all, one socket after another, round and round.
    InTurn {
        /// Events.
        events: u64,
        /// Sockets of the round, in whatever process.
        sockets: u32,
    },
}

/// Sockets to open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// The set that they join.
    pub(crate) set: SetId,
    /// Where.
    pub(crate) target: SocketAddr,
    /// Index of the first; an index stands for a user, and for a desk if each has its own.
    pub(crate) first: u32,
    /// How many.
    pub(crate) count: u32,
    /// On which desks.
    pub(crate) desks: Desks,
    /// Handshakes that may be under way at once.
    pub(crate) in_flight: u32,
    /// The browsers' key.
    pub(crate) api_key: String,
    /// The key that user tokens are sealed with, in hexadecimal.
    pub(crate) token_key: String,
    /// Bytes of the kernel's buffer for what was not read yet; none: the system's default.
    pub(crate) receive_buffer: Option<u32>,
    /// What they bring along.
    pub(crate) arrival: Arrival,
}

/// The answer to an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It is done.
    Done {
        /// When, by the clock of the machine.
        at: u64,
    },
    /// Where the count of events is; less than expected if the wait ran out.
    Received {
        /// Events so far.
        deliveries: u64,
        /// When the last of them was read.
        last: u64,
    },
    /// About a set.
    Report(Box<Report>),
    /// It could not be done.
    Failed(String),
}

/// What became of a set of sockets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Sockets that got as far as `ready`.
    pub(crate) ready: u64,
    /// Sockets that are open now.
    pub(crate) open: u64,
    /// Handshakes that failed, by HTTP status or what else went wrong.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Sockets that were ready and were closed by the server, by close code or what else ended them.
    pub(crate) closed: BTreeMap<String, u64>,
    /// Events that came in.
    pub(crate) deliveries: u64,
    /// `gap` frames.
    pub(crate) gaps: u64,
    /// Sockets, of those that follow the stream and are not closed, that were told that they go without what they missed, by why.
    pub(crate) unresumed: BTreeMap<String, u64>,
    /// Those that were neither told so nor sent what they had missed, all of it and nothing else, by what was wrong.
    pub(crate) misled: BTreeMap<String, u64>,
    /// What the ledgers of the sockets that are open, and do read, say.
    pub(crate) faults: Faults,
    /// From publishing to reading.
    pub(crate) latency: Buckets,
    /// From the connect to `ready`.
    pub(crate) ready_in: Buckets,
}

impl Published {
    /// How many of them were for the socket with this index.
    pub(crate) fn of(self, index: u32) -> u32 {
        match self {
            Self::Each(events) => events,
            Self::InTurn { events, sockets } => {
                let sockets = u64::from(sockets.max(1));
                u32::try_from(events / sockets + u64::from(u64::from(index) < events % sockets)).unwrap_or(u32::MAX)
            }
        }
    }
}

impl Arrival {
    /// The number of the first event that such a socket is owed.
    pub(crate) fn first(self) -> u32 {
        match self {
            Self::New => 0,
            Self::Following { first } | Self::Returning { first, .. } => first,
        }
    }
}

impl Desks {
    /// How many there are of so many sockets.
    pub(crate) fn count(self, sockets: u32) -> u32 {
        match self {
            Self::Shared => 1,
            Self::Own => sockets,
        }
    }

    /// The agent of the socket with this index.
    pub(crate) fn agent(self, index: u32) -> String {
        match self {
            Self::Shared => "shared".to_owned(),
            Self::Own => format!("desk-{index}"),
        }
    }
}

impl Report {
    /// Adds another process' part.
    pub(crate) fn add(&mut self, other: &Self) {
        self.ready += other.ready;
        self.open += other.open;
        self.deliveries += other.deliveries;
        self.gaps += other.gaps;
        self.faults += other.faults;
        let counts = [
            (&mut self.refused, &other.refused),
            (&mut self.closed, &other.closed),
            (&mut self.unresumed, &other.unresumed),
            (&mut self.misled, &other.misled),
        ];
        for (mine, theirs) in counts {
            for (what, count) in theirs {
                *mine.entry(what.clone()).or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_turn_add_up_to_all_of_them() {
        for events in [0, 1, 9, 10, 11, 1234] {
            let published = Published::InTurn { events, sockets: 10 };
            assert_eq!((0..10).map(|index| u64::from(published.of(index))).sum::<u64>(), events);
            assert!(published.of(0) >= published.of(9) && published.of(0) - published.of(9) <= 1);
        }
    }

    #[test]
    fn each_means_the_same_for_all() {
        assert_eq!((Published::Each(7).of(0), Published::Each(7).of(900)), (7, 7));
    }
}
