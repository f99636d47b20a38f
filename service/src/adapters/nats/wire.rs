//! How JetStream writes things: requests for events, events and status messages, settlements.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use daisi_ws_domain::event::StreamId;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    config::Nats,
    ports::{AckToken, Delivery, RawEvent, Settlement},
};

/// Where settlements go; a token for anything else is none.
pub(super) const ACK_PREFIX: &str = "$JS.ACK.";
/// What the subject of an answer ends with that is about no request of events, but whether one would be answered.
pub(super) const PROBE: u64 = u64::MAX;
/// Longest header value that is passed on, in bytes: ids and trace contexts are far shorter.
const MAX_HEADER_BYTES: usize = 256;

/// A request for events, in the JSON of JetStream; durations in nanoseconds.
#[derive(Debug, Serialize)]
pub(super) struct NextRequest {
    pub(super) batch: usize,
    pub(super) max_bytes: usize,
    #[serde(serialize_with = "nanos")]
    pub(super) expires: Duration,
    #[serde(serialize_with = "nanos")]
    pub(super) idle_heartbeat: Duration,
}

fn nanos<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(whole_nanos(*duration))
}

fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

/// A request that brings nothing, as no event is so small, and is answered at once.
#[derive(Debug, Serialize)]
pub(super) struct Probe {
    batch: usize,
    max_bytes: usize,
    no_wait: bool,
}

impl Probe {
    /// The body of such a request.
    pub(super) fn body() -> Bytes {
        let probe = Self { batch: 1, max_bytes: 1, no_wait: true };
        serde_json::to_vec(&probe).unwrap_or_default().into()
    }
}

/// The subject on which events are asked for.
pub(super) fn next_subject(nats: &Nats) -> String {
    format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", nats.stream_name, nats.consumer_name)
}

/// Where the settlement of no event would go: whether it may be sent there shows in the answer, or in none.
pub(super) fn settlement_of_nothing(nats: &Nats) -> String {
    format!("{ACK_PREFIX}{}.{}.1.0.0.0.0", nats.stream_name, nats.consumer_name)
}

/// Where the server says that an event was delivered too often.
pub(super) fn advisories(nats: &Nats) -> String {
    format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{}.{}", nats.stream_name, nats.consumer_name)
}

/// The sequence of an event that was delivered too often.
pub(super) fn delivered_too_often(message: &Message) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Advisory {
        stream_seq: u64,
    }
    serde_json::from_slice::<Advisory>(&message.payload).ok().map(|advisory| advisory.stream_seq)
}

/// What came on the inbox.
#[derive(Debug)]
pub(super) enum Incoming {
    /// An event.
    Event(RawEvent),
    /// The server lives, and has nothing.
    Heartbeat,
    /// A request is over; `left` events of it were not delivered, if the server says so.
    Over { request: u64, left: Option<usize> },
    /// A request is over because the consumer is not there, or not there any more.
    Gone { request: u64, reason: String },
    /// The server does not want this request now.
    Refused { request: u64, reason: String },
    /// Nothing of JetStream's.
    Foreign,
}

/// Reads one message. An event that it holds is as old as its first delivery, for all that is known here. The inbox's last token
/// is the number of the request that a status is about.
pub(super) fn read(message: Message, stream: StreamId, received_at: Instant) -> Incoming {
    let Some(status) = message.status else {
        return read_event(message, stream, received_at).map_or(Incoming::Foreign, Incoming::Event);
    };
    let request = message.subject.rsplit('.').next().and_then(|token| token.parse().ok()).unwrap_or(PROBE);
    let left = header(message.headers.as_ref(), "Nats-Pending-Messages").and_then(|text| text.parse().ok());
    let reason = message.description.unwrap_or_default();
    let text = reason.to_ascii_lowercase();
    match status.as_u16() {
        100 => Incoming::Heartbeat,
        404 | 408 => Incoming::Over { request, left },
        // These only say that the request is used up.
        409 if text.contains("maxbytes") && !text.contains("exceeded") || text.contains("batch completed") => {
            Incoming::Over { request, left }
        }
        409 if text.contains("exceeded") => Incoming::Refused { request, reason },
        409 | 503 => {
            Incoming::Gone { request, reason: if reason.is_empty() { "no consumer answers".to_owned() } else { reason } }
        }
        _ => Incoming::Refused { request, reason: format!("{status} {reason}") },
    }
}

fn read_event(message: Message, stream: StreamId, received_at: Instant) -> Option<RawEvent> {
    let reply = message.reply?;
    let parsed = Reply::parse(&reply)?;
    let passed_on = |name| header(message.headers.as_ref(), name).filter(|text| is_fit(text)).map(str::to_owned);
    Some(RawEvent {
        request_id: passed_on("X-Request-ID"),
        traceparent: passed_on("traceparent"),
        subject: message.subject.as_str().to_owned(),
        payload: message.payload,
        stream,
        seq: parsed.seq,
        stored_at: parsed.stored_at,
        delivery: Delivery { count: parsed.deliveries, received_at, age: Duration::ZERO, is_last: false },
        ack_token: AckToken(reply.as_str().to_owned()),
    })
}

/// The first value of a header, in whatever case the publisher wrote its name.
fn header<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    let (_, values) = headers?.iter().find(|(key, _)| AsRef::<str>::as_ref(*key).eq_ignore_ascii_case(name))?;
    values.first().map(async_nats::HeaderValue::as_str)
}

/// Is it harmless in a log line or in metadata?
fn is_fit(text: &str) -> bool {
    (1..=MAX_HEADER_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What the reply subject of an event says.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    deliveries: u64,
    seq: u64,
    stored_at: Duration,
}

impl Reply {
    /// `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<nanoseconds>.<pending>`; newer servers may write
    /// domain and account before the stream, and more at the end.
    fn parse(reply: &str) -> Option<Self> {
        let tokens = reply.strip_prefix(ACK_PREFIX)?.split('.');
        let skipped = match tokens.clone().count() {
            7 => 2,
            9.. => 4,
            _ => return None,
        };
        let mut numbers = tokens.skip(skipped);
        let (deliveries, seq) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        Some(Self { deliveries, seq, stored_at: Duration::from_nanos(numbers.nth(1)?.parse().ok()?) })
    }
}

/// The message that settles an event so.
pub(super) fn settlement(settlement: Settlement) -> Bytes {
    match settlement {
        Settlement::Ack => Bytes::from_static(b"+ACK"),
        Settlement::Terminate => Bytes::from_static(b"+TERM"),
        Settlement::Extend => Bytes::from_static(b"+WPI"),
        Settlement::Retry(Duration::ZERO) => Bytes::from_static(b"-NAK"),
        Settlement::Retry(delay) => Bytes::from(format!("-NAK {{\"delay\": {}}}", whole_nanos(delay))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_subjects_of_old_and_new_servers_are_read() {
        let expected = Reply { deliveries: 3, seq: 100, stored_at: Duration::from_nanos(1_790_230_470_084_404_000) };
        for reply in [
            "$JS.ACK.events.durable.3.100.7.1790230470084404000.42",
            "$JS.ACK._.hash.events.durable.3.100.7.1790230470084404000.42",
            "$JS.ACK.hub.hash.events.durable.3.100.7.1790230470084404000.42.token.more",
        ] {
            assert_eq!(Reply::parse(reply).as_ref(), Some(&expected), "{reply}");
        }
        for reply in ["", "$JS.ACK.", "_INBOX.1", "$JS.ACK.a.b.c.d.e.f.g", "$JS.ACK.a.b.3.100.7.1790.42.x"] {
            assert_eq!(Reply::parse(reply), None, "{reply}");
        }
    }

    #[test]
    fn a_retry_carries_its_delay_in_nanoseconds() {
        assert_eq!(settlement(Settlement::Retry(Duration::from_millis(1500))), "-NAK {\"delay\": 1500000000}");
        assert_eq!(settlement(Settlement::Retry(Duration::ZERO)), "-NAK");
    }

    #[test]
    fn header_values_that_could_break_a_log_line_are_ignored() {
        assert!(is_fit("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for text in ["", "a b", "a\tb", "ümlaut", &"x".repeat(MAX_HEADER_BYTES + 1)] {
            assert!(!is_fit(text), "{text:?}");
        }
    }
}
