//! The ways to read a stream by subject.

use serde_json::{Value, json};

use crate::stream::STREAM;

/// Events of one read at most, and their bytes: the bounds of a resume.
const BATCH: u64 = 500;
const BATCH_BYTES: u64 = 262_144;

/// One way to read.
#[derive(Debug)]
pub(super) struct Kind {
    /// As the table has it.
    pub(super) name: &'static str,
    /// How many events of the subject come after the cursor.
    missed: u64,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// The last event of a subject, from the leader.
    LeaderLast,
    /// The next event of a subject, from the leader.
    LeaderNext,
    /// The next event of a subject, from any replica.
    DirectNext,
    /// All events of a subject, from any replica.
    DirectBatch,
}

/// A subject, and what its reader has of it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) subject: String,
    /// Sequence of the last event of the subject.
    pub(super) last: u64,
    /// From one event of the subject to the next.
    pub(super) apart: u64,
}

impl Kind {
    pub(super) const ALL: &[Self] = &[
        Self { name: "leader, last of a subject", missed: 0, how: How::LeaderLast },
        Self { name: "leader, next of a subject, none there", missed: 0, how: How::LeaderNext },
        Self { name: "leader, next of a subject, 1 missed", missed: 1, how: How::LeaderNext },
        Self { name: "leader, next of a subject, 50 missed", missed: 50, how: How::LeaderNext },
        Self { name: "direct, next of a subject, none there", missed: 0, how: How::DirectNext },
        Self { name: "direct, next of a subject, 1 missed", missed: 1, how: How::DirectNext },
        Self { name: "direct, batch, none there", missed: 0, how: How::DirectBatch },
        Self { name: "direct, batch, 1 missed", missed: 1, how: How::DirectBatch },
        Self { name: "direct, batch, 5 missed", missed: 5, how: How::DirectBatch },
        Self { name: "direct, batch, 50 missed", missed: 50, how: How::DirectBatch },
    ];

    /// Where the request goes.
    pub(super) fn api(&self) -> String {
        match self.how {
            How::LeaderLast | How::LeaderNext => format!("$JS.API.STREAM.MSG.GET.{STREAM}"),
            How::DirectNext | How::DirectBatch => format!("$JS.API.DIRECT.GET.{STREAM}"),
        }
    }

    /// What is asked.
    pub(super) fn request(&self, place: &Place) -> Value {
        let seq = place.last.saturating_sub(self.missed * place.apart) + 1;
        match self.how {
            How::LeaderLast => json!({ "last_by_subj": place.subject }),
            How::LeaderNext | How::DirectNext => json!({ "seq": seq, "next_by_subj": place.subject }),
            How::DirectBatch => {
                json!({ "seq": seq, "next_by_subj": place.subject, "batch": BATCH, "max_bytes": BATCH_BYTES })
            }
        }
    }

    /// Does the answer come in several messages, the last of which has a status?
    pub(super) fn is_batch(&self) -> bool {
        self.how == How::DirectBatch
    }
}
