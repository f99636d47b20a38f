//! What a session saw, in the order in which it saw it, and what was published.

use serde::Deserialize;
use tokio::time::Instant;

use crate::identity::{Subject, Who};

/// A record of one stored event.
#[derive(Debug, Clone)]
pub struct Published {
    /// The publisher's number, also in the payload.
    pub number: u64,
    /// Where it was published.
    pub subject: Subject,
    /// Its sequence in the stream.
    pub seq: u64,
    /// When the first attempt to store it began.
    pub started: Instant,
    /// When the stream confirmed that it has it.
    pub stored: Instant,
}

/// One line of a ledger.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it was seen.
    pub at: Instant,
    /// The socket that it was seen on, or that was refused: they are counted from 1, in the order in which they were asked for.
    pub socket: u32,
    /// What was seen.
    pub seen: Seen,
}

/// What a session can see.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// `ready`: a socket to the pod of this id is open.
    Ready(String),
    /// The chat is selected.
    ChatSelected,
    /// An event with its sequence, the publisher's number and the subject that its payload names.
    Event {
        /// `seq` of the frame.
        seq: u64,
        /// The publisher's number.
        number: u64,
        /// The subject, as text, that the publisher wrote into the payload.
        subject: String,
    },
    /// A gap: so many events, first and last sequence, as far as the pod knows, and the reason.
    Gap {
        /// The range, where it is known.
        range: Option<(u64, u64)>,
        /// Why.
        reason: String,
    },
    /// An `error` frame, with its code.
    Error(String),
    /// The session goes on from here in the stream, as its `resume` asked for: all up to here it had before.
    Resumed(u64),
    /// `move`: a second socket shall be opened.
    Asked,
    /// A socket was refused, with this status.
    Refused(u16),
    /// The end of the socket, with its close code if there was a goodbye.
    Closed(Option<u16>),
    /// The end of a socket with 1001 `moved`: a second one has the session.
    Moved,
    /// What no frame should be.
    Nonsense(String),
}

impl Seen {
    /// Reads a frame.
    #[must_use]
    pub fn read(text: &str) -> Self {
        #[derive(Deserialize)]
        struct Frame<'a> {
            r#type: &'a str,
            seq: Option<u64>,
            #[serde(default)]
            payload: serde_json::Value,
        }
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return Self::Nonsense(text.to_owned()) };
        let word = |key: &str| frame.payload[key].as_str().unwrap_or_default().to_owned();
        match (frame.r#type, frame.seq, frame.payload["n"].as_u64()) {
            ("event", Some(seq), Some(number)) => Self::Event { seq, number, subject: word("subject") },
            ("ready", ..) => Self::Ready(word("pod_id")),
            ("chat_selected", ..) => Self::ChatSelected,
            ("move", ..) => Self::Asked,
            ("gap", ..) => Self::Gap {
                range: frame.payload["first_seq"].as_u64().zip(frame.payload["last_seq"].as_u64()),
                reason: word("reason"),
            },
            ("error", ..) => Self::Error(word("code")),
            _ => Self::Nonsense(text.to_owned()),
        }
    }

    /// Is it the end of a socket?
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Moved)
    }
}

/// All that one session saw.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Whose it is.
    pub who: Who,
    /// The lines.
    pub entries: Vec<Entry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read() {
        let subject = "wa.a.b.chats".to_owned();
        assert_eq!(
            Seen::read(r#"{"type":"event","seq":7,"payload":{"n":1,"subject":"wa.a.b.chats"}}"#),
            Seen::Event { seq: 7, number: 1, subject }
        );
        assert_eq!(
            Seen::read(r#"{"type":"gap","payload":{"dropped":null,"first_seq":null,"last_seq":null,"reason":"pod_resumed"}}"#),
            Seen::Gap { range: None, reason: "pod_resumed".into() }
        );
        assert_eq!(Seen::read(r#"{"type":"move","payload":{"within_ms":15000,"reason":"drain"}}"#), Seen::Asked);
        assert!(matches!(Seen::read(r#"{"type":"event","payload":{}}"#), Seen::Nonsense(_)));
    }
}
