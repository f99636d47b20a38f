//! The JSON frames of the `json.v1` sub-protocol, both ways.

mod client;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

pub use self::client::{ClientFrame, ClientFrameError};

use crate::{
    close::ErrorCode,
    event::{Event, StreamId},
    gap::Gap,
    ids::ChatId,
    moving::MoveReason,
    resume::NotResumed,
};

/// The name of the sub-protocol, offered when the client asks for it.
pub const SUBPROTOCOL: &str = "json.v1";

crate::words! {
    /// The kinds of frame that the server writes; the closed set behind the `type` label.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum FrameKind {
        /// The session is locked and its routes are registered.
        Ready = "ready",
        /// One event of the stream.
        Event = "event",
        /// Something the client sent was refused, or the socket is about to close.
        Error = "error",
        /// A chat was selected and its route is registered.
        ChatSelected = "chat_selected",
        /// Events were lost, in this place of the order.
        Gap = "gap",
        /// The client should open a second socket.
        Move = "move",
    }
}

/// An encoded text frame's content: valid UTF-8, shared by every socket that gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    kind: FrameKind,
    text: Bytes,
}

#[derive(Serialize)]
struct Envelope<P> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<P>,
}

/// The body of an error, over HTTP and in an `error` frame alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// What a client branches on.
    pub code: ErrorCode,
    /// One sentence for a person; programs go by the code.
    pub message: String,
    /// What to do next, or what was wrong exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

impl ErrorBody {
    /// An error by code and message, without details yet.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// The same with details for people; clients must not parse them.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }
}

#[derive(Serialize)]
struct GapBody {
    dropped: Option<u64>,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    reason: &'static str,
}

/// Where a session stands in the stream: it has everything up to `safe` that concerned it, or was told of a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The stream's name; see [`StreamId::name`].
    pub stream: Box<str>,
    /// A sequence there.
    pub safe: u64,
}

impl Place {
    /// A place in this stream.
    #[must_use]
    pub fn new(stream: StreamId, safe: u64) -> Self {
        Self { stream: stream.name().into(), safe }
    }
}

/// What became of a wish to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// So many events follow, before anything newer.
    Resumed(usize),
    /// The session is as one without a cursor.
    Not(NotResumed),
}

#[derive(Serialize)]
struct PlaceBody<'a> {
    stream: &'a str,
    safe: u64,
}

#[derive(Serialize)]
struct ReadyBody<'a> {
    pod_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_id: Option<&'a ChatId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safe: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct ChatBody<'a> {
    chat_id: &'a ChatId,
}

#[derive(Serialize)]
struct MoveBody {
    within_ms: u64,
    reason: &'static str,
}

impl Frame {
    /// What kind of frame this is.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The JSON text, shared and not copied.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.text
    }

    fn json<P: Serialize>(kind: FrameKind, payload: Option<P>) -> Self {
        let text = serde_json::to_vec(&Envelope { r#type: kind.as_str(), payload }).unwrap_or_default();
        Self { kind, text: text.into() }
    }

    /// `ready`: names the pod, the chat that is selected if there is one, where the session stands if that is known, and what
    /// became of a wish to resume.
    #[must_use]
    pub fn ready(pod_id: &str, chat: Option<&ChatId>, place: Option<&Place>, resumption: Option<Resumption>) -> Self {
        let (resumed, replayed, reason) = match resumption {
            None => (None, None, None),
            Some(Resumption::Resumed(events)) => (Some(true), Some(events), None),
            Some(Resumption::Not(reason)) => (Some(false), None, Some(reason.as_str())),
        };
        let (stream, safe) = (place.map(|place| &*place.stream), place.map(|place| place.safe));
        Self::json(FrameKind::Ready, Some(ReadyBody { pod_id, chat_id: chat, stream, safe, resumed, replayed, reason }))
    }

    /// The answer to a client's `ready`: where the session stands, if that is known.
    #[must_use]
    pub fn ready_echo(place: Option<&Place>) -> Self {
        Self::json(FrameKind::Ready, place.map(|Place { stream, safe }| PlaceBody { stream, safe: *safe }))
    }

    /// The frame that answers a selection: which chat is selected now.
    #[must_use]
    pub fn chat_selected(chat: &ChatId) -> Self {
        Self::json(FrameKind::ChatSelected, Some(ChatBody { chat_id: chat }))
    }

    /// The frame that refuses a message of the client; the socket stays open.
    #[must_use]
    pub fn error(body: &ErrorBody) -> Self {
        Self::json(FrameKind::Error, Some(body))
    }

    /// The frame that tells a client which events it goes without.
    #[must_use]
    pub fn gap(gap: &Gap) -> Self {
        let body = GapBody { dropped: gap.dropped, first_seq: gap.first_seq, last_seq: gap.last_seq, reason: gap.cause.as_str() };
        Self::json(FrameKind::Gap, Some(body))
    }

    /// The frame that asks a client to open a second socket within that time, while this one still serves.
    #[must_use]
    pub fn move_on(reason: MoveReason, within: Duration) -> Self {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        Self::json(FrameKind::Move, Some(MoveBody { within_ms, reason: reason.as_str() }))
    }

    /// `event`: the publisher's bytes as they are, with `event_type` put before the closing brace where that key is absent.
    /// An event without a place in a stream has no `seq`, nor `safe`.
    #[must_use]
    pub fn event(event: &Event, stamp: Stamp) -> Self {
        let payload = event.payload.bytes();
        let mut text = BytesMut::with_capacity(payload.len() + 128);
        stamp.open(event.is_sequenced().then_some(event.seq), &mut text);
        if event.payload.has_event_type() {
            text.put_slice(payload);
        } else {
            let body = &payload[..payload.len() - 1];
            text.put_slice(body);
            let empty = body[1..].iter().all(u8::is_ascii_whitespace);
            text.put_slice(if empty { b"\"event_type\":\"" } else { b",\"event_type\":\"" });
            text.put_slice(event.address.kind().as_str().as_bytes());
            text.put_slice(b"\"}");
        }
        text.put_u8(b'}');
        Self { kind: FrameKind::Event, text: text.freeze() }
    }
}

/// What an event's frame says beside the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Up to where whoever reads it has everything, if that is known.
    pub safe: Option<u64>,
    /// The event was read again from the stream.
    pub replayed: bool,
}

impl Stamp {
    /// Writes an event's frame up to its payload.
    fn open(self, seq: Option<u64>, text: &mut BytesMut) {
        let mut digits = itoa::Buffer::new();
        text.put_slice(br#"{"type":"event","#);
        if let Some(seq) = seq {
            text.put_slice(br#""seq":"#);
            text.put_slice(digits.format(seq).as_bytes());
            text.put_u8(b',');
            if let Some(safe) = self.safe {
                text.put_slice(br#""safe":"#);
                text.put_slice(digits.format(safe).as_bytes());
                text.put_u8(b',');
            }
        }
        if self.replayed {
            text.put_slice(br#""replayed":true,"#);
        }
        text.put_slice(br#""payload":"#);
    }

    /// The text of an event's frame that was made with this stamp, with another one.
    #[must_use]
    pub fn replaced(self, by: Self, seq: u64, frame: &[u8]) -> Bytes {
        let (mut before, mut text) = (BytesMut::new(), BytesMut::with_capacity(frame.len() + 32));
        self.open(Some(seq), &mut before);
        by.open(Some(seq), &mut text);
        text.put_slice(frame.get(before.len()..).unwrap_or_default());
        text.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Address, Payload, StreamId},
        gap::GapCause,
    };

    fn event(payload: &'static str) -> Event {
        Event {
            address: Address::parse("wa", "wa.a.b.chats").unwrap(),
            payload: Payload::parse(&Bytes::from_static(payload.as_bytes())).unwrap(),
            stream: StreamId(1),
            seq: 7,
            stored_at: Duration::ZERO,
            request_id: None,
            traceparent: None,
        }
    }

    fn text(frame: &Frame) -> &str {
        std::str::from_utf8(frame.bytes()).unwrap()
    }

    #[test]
    fn event_type_is_added_only_where_it_is_absent() {
        assert_eq!(
            text(&Frame::event(&event(r#"{"id":9007199254740993}"#), Stamp::default())),
            r#"{"type":"event","seq":7,"payload":{"id":9007199254740993,"event_type":"chat"}}"#
        );
        let empty = Frame::event(&event("{ }"), Stamp::default());
        assert_eq!(text(&empty), r#"{"type":"event","seq":7,"payload":{ "event_type":"chat"}}"#);
        assert_eq!(
            text(&Frame::event(&event(r#"{"event_type":"mine"}"#), Stamp::default())),
            r#"{"type":"event","seq":7,"payload":{"event_type":"mine"}}"#
        );
    }

    #[test]
    fn an_event_without_a_place_in_a_stream_shows_no_seq() {
        let event = Event { stream: StreamId::UNKNOWN, seq: 0, ..event(r#"{"event_type":"mine"}"#) };
        let stamp = Stamp { safe: Some(3), replayed: false };
        assert_eq!(text(&Frame::event(&event, stamp)), r#"{"type":"event","payload":{"event_type":"mine"}}"#);
    }

    #[test]
    fn an_event_says_up_to_where_its_reader_has_everything_and_whether_it_was_read_again() {
        let event = event(r#"{"event_type":"mine"}"#);
        let (live, again) = (Stamp { safe: Some(3), replayed: false }, Stamp { safe: Some(7), replayed: true });
        let (live_text, again_text) = (Frame::event(&event, live), Frame::event(&event, again));
        assert_eq!(text(&live_text), r#"{"type":"event","seq":7,"safe":3,"payload":{"event_type":"mine"}}"#);
        assert_eq!(text(&again_text), r#"{"type":"event","seq":7,"safe":7,"replayed":true,"payload":{"event_type":"mine"}}"#);
        for (from, frame) in [(live, &live_text), (again, &again_text)] {
            for (to, expected) in [(live, &live_text), (again, &again_text)] {
                assert_eq!(from.replaced(to, 7, frame.bytes()), expected.bytes());
            }
        }
    }

    #[test]
    fn ready_says_where_the_session_stands_and_what_became_of_a_wish_to_resume() {
        let place = Place::new(StreamId(0x2a), 41);
        let ready = |place, resumption| Frame::ready("pod-1", None, place, resumption);
        assert_eq!(text(&ready(None, None)), r#"{"type":"ready","payload":{"pod_id":"pod-1"}}"#);
        assert_eq!(
            text(&ready(Some(&place), Some(Resumption::Resumed(3)))),
            r#"{"type":"ready","payload":{"pod_id":"pod-1","stream":"2a","safe":41,"resumed":true,"replayed":3}}"#
        );
        assert_eq!(
            text(&ready(Some(&place), Some(Resumption::Not(NotResumed::TooOld)))),
            r#"{"type":"ready","payload":{"pod_id":"pod-1","stream":"2a","safe":41,"resumed":false,"reason":"too_old"}}"#
        );
        assert_eq!(text(&Frame::ready_echo(Some(&place))), r#"{"type":"ready","payload":{"stream":"2a","safe":41}}"#);
        assert_eq!(text(&Frame::ready_echo(None)), r#"{"type":"ready"}"#);
    }

    #[test]
    fn a_gap_of_unknown_size_says_null() {
        assert_eq!(
            text(&Frame::gap(&Gap::unknown(GapCause::PodResumed))),
            r#"{"type":"gap","payload":{"dropped":null,"first_seq":null,"last_seq":null,"reason":"pod_resumed"}}"#
        );
    }

    #[test]
    fn a_client_that_is_to_move_is_told_how_long_it_has_and_why() {
        let frame = Frame::move_on(MoveReason::Drain, Duration::from_millis(15_000));
        assert_eq!(text(&frame), r#"{"type":"move","payload":{"within_ms":15000,"reason":"drain"}}"#);
    }

    #[test]
    fn an_error_frame_carries_code_and_message() {
        let body = ErrorBody::new(ErrorCode::BadRequest, "no");
        assert_eq!(text(&Frame::error(&body)), r#"{"type":"error","payload":{"code":"BadRequest","message":"no"}}"#);
    }

    #[test]
    fn client_frames_are_read_and_others_refused() {
        let chat = ChatId::parse("c1").unwrap();
        assert_eq!(ClientFrame::parse(r#"{"type":"select_chat","payload":{"chat_id":"c1"}}"#), Ok(ClientFrame::SelectChat(chat)));
        assert_eq!(ClientFrame::parse(r#"{"type":"ready","payload":{"x":1}}"#), Ok(ClientFrame::Ready));
        for bad in ["", "x", "[]", "[\"ready\"]", "{}", r#"{"type":1}"#] {
            assert_eq!(ClientFrame::parse(bad), Err(ClientFrameError::Malformed), "{bad}");
        }
        assert_eq!(ClientFrame::parse(r#"{"type":"nope"}"#), Err(ClientFrameError::UnknownType));
        for bad in [
            r#"{"type":"select_chat"}"#,
            r#"{"type":"select_chat","payload":{"chat_id":"a b"}}"#,
            r#"{"type":"select_chat","payload":{"chat_id":""}}"#,
        ] {
            assert!(matches!(ClientFrame::parse(bad), Err(ClientFrameError::ChatId(_))), "{bad}");
        }
    }
}
