//! What waits in a mailbox.

use std::sync::Arc;

use daisi_ws_domain::{
    gap::{Gap, GapCause},
    missing::Missing,
};
use smallvec::SmallVec;

use super::hole::Hole;
use crate::application::hub::{memory::Memory, prepared_message::PreparedMessage};

/// What a gap counts for in bytes: about as many as it has when it is written.
pub(super) const GAP_BYTES: usize = 128;

/// One thing to write to a socket, in the order in which it was put.
#[derive(Debug, Clone)]
pub enum Item {
    /// An event.
    Event(Arc<PreparedMessage>),
    /// A notice that events were lost here. In a box, as it is rare, and larger than all else that waits.
    Gap(Box<Gap>),
    /// Events that are to be read again here.
    Hole(Box<Hole>),
}

/// What is taken from a mailbox at once: most often one item.
pub type Items = SmallVec<[Item; 1]>;

impl Item {
    /// What stands for a gap: a hole, where it is known what to read again.
    pub(crate) fn missing(gap: Gap, missing: Option<Missing>) -> Self {
        match missing {
            Some(missing) => Self::Hole(Box::new(Hole { gap, missing })),
            None => Self::Gap(Box::new(gap)),
        }
    }

    /// What it counts for in the bounds.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Event(event) => event.len(),
            Self::Gap(_) | Self::Hole(_) => GAP_BYTES,
        }
    }

    /// Where it is counted; a gap is not.
    pub(super) fn memory(&self) -> Option<&Arc<Memory>> {
        match self {
            Self::Event(event) => Some(event.memory()),
            Self::Gap(_) | Self::Hole(_) => None,
        }
    }

    /// How many bytes of events the pod holds.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Event(event) => event.held(),
            Self::Gap(_) | Self::Hole(_) => 0,
        }
    }

    /// Is it an event?
    pub(crate) fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    /// Its sequence in the stream; none for a gap, nor for an event that an old pod handed over.
    pub(super) fn seq(&self) -> Option<u64> {
        match self {
            Self::Event(event) => Some(event.seq).filter(|seq| *seq > 0),
            Self::Gap(_) | Self::Hole(_) => None,
        }
    }

    /// The same for who has nothing read again.
    pub(super) fn without_repair(self) -> Self {
        match self {
            Self::Hole(hole) => Self::Gap(Box::new(hole.gap)),
            other => other,
        }
    }

    pub(super) fn as_gap(&self) -> Gap {
        match self {
            Self::Event(_) => {
                let seq = self.seq();
                Gap { dropped: Some(1), first_seq: seq, last_seq: seq, cause: GapCause::SlowClient }
            }
            Self::Gap(gap) => **gap,
            Self::Hole(hole) => hole.gap,
        }
    }
}
