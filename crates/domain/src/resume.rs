//! Resuming: where a client stands in the stream, and why it can't go on from there.

use std::fmt;

use crate::event::StreamId;

/// Longest name of a stream in a cursor, in bytes.
pub const MAX_STREAM_NAME: usize = 64;

impl StreamId {
    /// The stream's name for clients, to whom it is opaque: `A-Za-z0-9_-`, and another one for a stream made anew.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:x}", self.0)
    }
}

/// A place in a stream up to which a client has everything that concerned it, or was told of a gap: `{stream}:{safe}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    stream: Box<str>,
    /// The highest `safe` that the client has read.
    pub safe: u64,
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is \"{{stream}}:{{safe}}\", as `ready` and the events before it said")]
pub struct NoCursor;

impl Cursor {
    /// Reads a cursor as a client brings it.
    ///
    /// # Errors
    /// When it has another shape. A name that no stream of ours ever had is well-formed.
    pub fn parse(text: &str) -> Result<Self, NoCursor> {
        let (stream, safe) = text.split_once(':').ok_or(NoCursor)?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(1..=MAX_STREAM_NAME).contains(&stream.len()) || !stream.bytes().all(is_name) {
            return Err(NoCursor);
        }
        if safe.is_empty() || !safe.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoCursor);
        }
        Ok(Self { stream: stream.into(), safe: safe.parse().map_err(|_| NoCursor)? })
    }

    /// Is it a place in this stream?
    #[must_use]
    pub fn is_in(&self, stream: StreamId) -> bool {
        *self.stream == *stream.name()
    }

    /// The stream's name, as the client gave it.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.stream, self.safe)
    }
}

crate::words! {
    /// Why a session is without what passed while its client was away; the `reason` beside `"resumed":false`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum NotResumed {
        /// The stream was made anew since, or lost what the client had.
        StreamChanged = "stream_changed",
        /// The stream begins later than the cursor.
        TooOld = "too_old",
        /// More has passed than is replayed at once.
        TooMuch = "too_much",
        /// Too many others resume; the client may ask again.
        Busy = "busy",
        /// The stream did not answer, or can't be read by subject; the client may ask again.
        Unavailable = "unavailable",
        /// The cursor is none.
        Malformed = "malformed",
    }
}

impl NotResumed {
    /// May the same cursor do in a while? Then the session tells no newer one.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_names_its_stream_and_survives_the_round_trip() {
        let stream = StreamId(1_759_000_000_123_456_789);
        let cursor = Cursor::parse(&format!("{}:42", stream.name())).unwrap();
        assert_eq!((cursor.safe, cursor.is_in(stream), cursor.is_in(StreamId(1))), (42, true, false));
        assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
    }

    #[test]
    fn a_name_that_no_stream_has_is_another_stream_and_what_has_no_shape_is_no_cursor() {
        assert!(!Cursor::parse("made-up_NAME:7").unwrap().is_in(StreamId(7)));
        for bad in ["", ":", "a", "a:", ":1", "a:-1", "a:+1", "a:1 ", "a:1:2", "a b:1", "a:18446744073709551616", "\u{e4}:1"] {
            assert_eq!(Cursor::parse(bad), Err(NoCursor), "{bad}");
        }
        let longest = "a".repeat(MAX_STREAM_NAME);
        assert!(Cursor::parse(&format!("{longest}:0")).is_ok() && Cursor::parse(&format!("{longest}a:0")).is_err());
    }
}
