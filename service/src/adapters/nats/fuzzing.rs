//! What NATS sends and what names it, for `service/fuzz`: read as the event source reads it. A refusal is its text.

use async_nats::Message;
use daisi_ws_domain::{event::StreamId, gap::Gap};
use tokio::time::Instant;

use super::{
    connect, identity,
    progress::{Progress, Reading},
    replay::answers::{self, Piece},
    subjects,
    wire::{self, Incoming},
};
use crate::ports::{RawEvent, SettledUpTo, StoredEvent, StreamBounds};

/// The event of a message on the inbox.
///
/// # Errors
/// With what else it is.
pub fn event(message: Message, stream: StreamId, received_at: Instant) -> Result<RawEvent, String> {
    match wire::read(message, stream, received_at) {
        Incoming::Event(event) => Ok(event),
        other => Err(format!("{other:?}")),
    }
}

/// What a subject has to begin with for a settlement to be sent there.
pub const ACK_PREFIX: &str = wire::ACK_PREFIX;

/// The sequence in an advisory of too many deliveries.
#[must_use]
pub fn delivered_too_often(message: &Message) -> Option<u64> {
    wire::delivered_too_often(message)
}

/// Does every subject that `narrow` matches match `wide` too?
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    subjects::covers(wide, narrow)
}

/// Is there a subject that both match?
#[must_use]
pub fn overlap(a: &str, b: &str) -> bool {
    subjects::overlap(a, b)
}

/// The addresses in `nats.url`, without user and password.
///
/// # Errors
/// When one is none.
pub fn servers(url: &str) -> Result<Vec<String>, String> {
    match connect::servers(url) {
        Ok((servers, _)) => Ok(servers.into_iter().map(|server| server.into_inner().to_string()).collect()),
        Err(error) => Err(format!("{error} {error:?}")),
    }
}

/// The line of a credentials file below the heading that ends with `name`.
#[must_use]
pub fn credential<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    identity::block(text, name)
}

/// What the stream holds, by an answer about it.
///
/// # Errors
/// When it is none.
pub fn bounds(answer: &[u8]) -> Result<StreamBounds, String> {
    answers::bounds(answer).map_err(|error| error.to_string())
}

/// The event that was found, by the leader's answer.
///
/// # Errors
/// When it is none.
pub fn found(answer: &[u8]) -> Result<Option<StoredEvent>, String> {
    answers::found(answer).map_err(|error| error.to_string())
}

/// The event in a message of a direct get's answer, and the one before it.
#[must_use]
pub fn piece(stream: &str, message: Message) -> Option<(StoredEvent, u64)> {
    match answers::piece(stream, message) {
        Piece::Event { event, before } => Some((event, before)),
        _ => None,
    }
}

/// What is known of the consumer.
#[derive(Debug, Default)]
pub struct Consumer(Progress);

impl Consumer {
    /// Takes in which stream is there, and its last sequence.
    pub fn stream(&mut self, stream: StreamId, last: u64) {
        self.0.stream(stream, last);
    }

    /// Takes in what the server says of the consumer; false if that can't be read.
    pub fn read(&mut self, answer: &[u8]) -> bool {
        let Ok(reading) = serde_json::from_slice::<Reading>(answer) else { return false };
        self.0.read(&reading, reading.at());
        true
    }

    /// What is settled.
    #[must_use]
    pub fn settled(&self) -> Option<SettledUpTo> {
        self.0.settled()
    }

    /// Takes what was passed over.
    pub fn take_missed(&mut self) -> Option<Gap> {
        self.0.take_missed()
    }
}
