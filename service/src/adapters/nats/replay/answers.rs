//! What JetStream answers to who reads it by subject. Nothing of it is believed beyond what has to be.

use std::{borrow::Cow, time::Duration};

use async_nats::{HeaderMap, Message, jetstream};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use daisi_ws_domain::event::StreamId;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::ports::{StoredEvent, StreamBounds};

/// Nothing comes after the cursor.
const NO_MESSAGE_FOUND: u64 = 10037;

/// Why an answer brings nothing.
#[derive(Debug, thiserror::Error)]
pub(in crate::adapters::nats) enum Unanswered {
    /// The request can't work as things are.
    #[error("JetStream refuses")]
    Refused(#[source] jetstream::Error),
    /// The server can't do it for now.
    #[error("JetStream can't do it for now")]
    Unready(#[source] jetstream::Error),
    /// It is no answer to what was asked.
    #[error("JetStream gave an answer that makes no sense: {0}")]
    Malformed(Cow<'static, str>),
}

impl Unanswered {
    /// Codes of the 400s say that the request is at fault, the others that the server is.
    fn said(error: jetstream::Error) -> Self {
        if (400..500).contains(&error.code()) { Self::Refused(error) } else { Self::Unready(error) }
    }

    pub(super) const fn malformed(what: &'static str) -> Self {
        Self::Malformed(Cow::Borrowed(what))
    }
}

impl From<serde_json::Error> for Unanswered {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string().into())
    }
}

/// A time as the server writes it, since the Unix epoch.
fn time(text: &str) -> Option<Duration> {
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// What the stream holds, as its leader says.
///
/// # Errors
/// When it says something else.
pub(in crate::adapters::nats) fn bounds(answer: &[u8]) -> Result<StreamBounds, Unanswered> {
    #[derive(Deserialize)]
    struct Info<'a> {
        error: Option<jetstream::Error>,
        #[serde(borrow)]
        created: Option<Cow<'a, str>>,
        #[serde(borrow)]
        state: Option<State<'a>>,
        /// The server's clock.
        #[serde(borrow)]
        ts: Option<Cow<'a, str>>,
    }
    #[derive(Deserialize)]
    struct State<'a> {
        messages: u64,
        first_seq: u64,
        last_seq: u64,
        #[serde(borrow)]
        first_ts: Option<Cow<'a, str>>,
    }
    let info: Info<'_> = serde_json::from_slice(answer)?;
    if let Some(error) = info.error {
        return Err(Unanswered::said(error));
    }
    let (Some(created), Some(state)) = (info.created, info.state) else {
        return Err(Unanswered::malformed("it does not say what the stream holds"));
    };
    let created =
        OffsetDateTime::parse(&created, &Rfc3339).map_err(|_| Unanswered::malformed("the stream was made at no time"))?;
    let after_last = state.last_seq.saturating_add(1);
    let oldest = state.first_ts.as_deref().filter(|_| state.messages > 0).and_then(time);
    let now = info.ts.as_deref().and_then(time);
    Ok(StreamBounds {
        stream: StreamId(created.unix_timestamp_nanos()),
        first: if state.messages == 0 { after_last } else { state.first_seq.min(after_last) },
        last: state.last_seq,
        window: oldest.zip(now).map(|(oldest, now)| now.saturating_sub(oldest)),
    })
}

/// The event that the leader has found, if there is one.
///
/// # Errors
/// When it answers something else.
pub(in crate::adapters::nats) fn found(answer: &[u8]) -> Result<Option<StoredEvent>, Unanswered> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        error: Option<jetstream::Error>,
        #[serde(borrow)]
        message: Option<Stored<'a>>,
    }
    #[derive(Deserialize)]
    struct Stored<'a> {
        subject: String,
        seq: u64,
        /// Left out if it is empty.
        #[serde(borrow, default)]
        data: Cow<'a, str>,
        #[serde(borrow)]
        time: Cow<'a, str>,
    }
    let answer: Answer<'_> = serde_json::from_slice(answer)?;
    match (answer.message, answer.error) {
        (_, Some(error)) if error.error_code().0 == NO_MESSAGE_FOUND => Ok(None),
        (_, Some(error)) => Err(Unanswered::said(error)),
        (None, None) => Err(Unanswered::malformed("neither an event nor an error")),
        (Some(stored), None) => {
            let payload =
                STANDARD.decode(stored.data.as_bytes()).map_err(|_| Unanswered::malformed("the payload is not encoded"))?;
            let stored_at = time(&stored.time).ok_or(Unanswered::malformed("the event was stored at no time"))?;
            Ok(Some(StoredEvent { subject: stored.subject, payload: Bytes::from(payload), seq: stored.seq, stored_at }))
        }
    }
}

/// One message of the answer to a direct get of many events.
#[derive(Debug)]
pub(in crate::adapters::nats) enum Piece {
    /// An event.
    Event {
        /// As it was stored.
        event: StoredEvent,
        /// The event before it in this answer; 0 if it is the first.
        before: u64,
    },
    /// That was all of this answer.
    End {
        /// Does the replica that answered have more of them?
        more: bool,
    },
    /// Nothing comes after the cursor.
    Nothing,
    /// Nobody answers such requests, or not this one.
    Unfit,
}

/// Reads such a message. An event's own headers come first in it, whatever they are called, so the last of a name is the server's.
/// What only looks like the end, by a status that the publisher wrote, is one more question to the leader.
pub(in crate::adapters::nats) fn piece(stream: &str, message: Message) -> Piece {
    match message.status.map(|status| status.as_u16()) {
        None => message.headers.as_ref().and_then(|headers| Marks::read(stream, headers)).map_or(Piece::Unfit, |marks| {
            let Marks { subject, seq, stored_at, before } = marks;
            Piece::Event { event: StoredEvent { subject, payload: message.payload, seq, stored_at }, before }
        }),
        Some(204) => {
            let left = message.headers.as_ref().and_then(|headers| headers.get_last("Nats-Num-Pending"));
            Piece::End { more: left.is_some_and(|left| left.as_str() != "0") }
        }
        Some(404) => Piece::Nothing,
        Some(_) => Piece::Unfit,
    }
}

/// What the server writes on an event of a batch.
struct Marks {
    subject: String,
    seq: u64,
    stored_at: Duration,
    before: u64,
}

impl Marks {
    /// A server that knows no batches does not write what came before; and a mirror, which may begin later, is another stream.
    fn read(stream: &str, headers: &HeaderMap) -> Option<Self> {
        let last = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
        last("Nats-Stream").filter(|name| *name == stream)?;
        Some(Self {
            subject: last("Nats-Subject")?.to_owned(),
            seq: last("Nats-Sequence")?.parse().ok()?,
            stored_at: time(last("Nats-Time-Stamp")?)?,
            before: last("Nats-Last-Sequence")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.append(*name, *value));
        let (subject, payload) = ("_INBOX.1".into(), Bytes::from_static(b"{}"));
        Message { subject, payload, reply: None, headers: Some(map), status: None, description: None, length: 0 }
    }

    const MARKS: [(&str, &str); 5] = [
        ("Nats-Stream", "wa_stream"),
        ("Nats-Subject", "wa.acme.a1.chats"),
        ("Nats-Sequence", "7"),
        ("Nats-Time-Stamp", "2026-11-30T10:00:00.5Z"),
        ("Nats-Last-Sequence", "3"),
    ];

    #[test]
    fn what_a_publisher_writes_in_the_servers_name_counts_for_nothing() {
        let forged =
            [("Nats-Subject", "wa.other.a1.chats"), ("Nats-Sequence", "1"), ("Nats-Stream", "x"), ("nats-sequence", "2")];
        let Piece::Event { event, before } = piece("wa_stream", said(&[&forged[..], &MARKS].concat())) else { panic!() };
        assert_eq!((event.subject.as_str(), event.seq, before), ("wa.acme.a1.chats", 7, 3));
        assert_eq!(event.stored_at.subsec_millis(), 500);
    }

    #[test]
    fn an_answer_of_a_mirror_or_of_a_server_that_knows_no_batches_is_not_used() {
        assert!(matches!(piece("other", said(&MARKS)), Piece::Unfit));
        assert!(matches!(piece("wa_stream", said(&MARKS[..4])), Piece::Unfit));
        assert!(matches!(piece("wa_stream", Message { headers: None, ..said(&[]) }), Piece::Unfit));
    }

    #[test]
    fn the_bounds_of_a_stream_without_events_are_those_of_the_next() {
        let info = |messages: u64, first: u64, ts: &str| {
            let json = format!(
                r#"{{"created":"2026-11-30T10:00:00.000000001Z",{ts}"state":{{"messages":{messages},"first_seq":{first},
                "last_seq":9,"first_ts":"2026-11-30T11:00:00Z"}}}}"#
            );
            bounds(json.as_bytes()).unwrap()
        };
        let now = r#""ts":"2026-11-30T11:00:07Z","#;
        let of = |bounds: StreamBounds| (bounds.first, bounds.last, bounds.window);
        assert_eq!(of(info(3, 7, now)), (7, 9, Some(Duration::from_secs(7))));
        assert_eq!(of(info(3, 7, "")), (7, 9, None));
        assert_eq!(of(info(0, 0, now)), (10, 9, None));
        assert_eq!(info(3, 7, now).stream.0 % 1_000_000_000, 1);
    }

    #[test]
    fn a_missing_event_is_told_from_a_missing_stream_and_from_an_outage() {
        let answer = |code: u64, err_code: u64| {
            found(format!(r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"x"}}}}"#).as_bytes())
        };
        assert!(matches!(answer(404, 10037), Ok(None)));
        assert!(matches!(answer(404, 10059), Err(Unanswered::Refused(_))));
        assert!(matches!(answer(503, 10008), Err(Unanswered::Unready(_))));
        assert!(matches!(found(b"{}"), Err(Unanswered::Malformed(_))));
    }

    #[test]
    fn an_event_without_a_payload_has_an_empty_one() {
        let event = |data: &str| {
            let json = format!(r#"{{"message":{{"subject":"wa.a.b.chats","seq":4,{data}"time":"2026-11-30T10:00:00Z"}}}}"#);
            found(json.as_bytes())
        };
        assert_eq!(event("").unwrap().unwrap().payload, "");
        assert_eq!(event(r#""data":"e30=","#).unwrap().unwrap().payload, "{}");
        assert!(event(r#""data":"e30","#).is_err());
    }
}
