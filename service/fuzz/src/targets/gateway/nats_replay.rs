//! Which answer, then the answer: JSON, or headers and a payload with a zero byte between them.

use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use daisi_ws_service::adapters::nats::fuzzing as nats;
use serde_json::Value;

use super::nats_message::headers;
use crate::input::{Input, split, text};

const STREAM: &str = "wa_stream";

pub(in super::super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    match input.byte() % 4 {
        0 => bounds(input.rest()),
        1 => found(input.rest()),
        2 => piece(input.rest(), None),
        _ => {
            let status = 100 + 100 * u16::from(input.byte() % 5) + u16::from(input.byte() % 16);
            piece(input.rest(), StatusCode::from_u16(status).ok());
        }
    }
}

fn bounds(answer: &[u8]) {
    let Ok(bounds) = nats::bounds(answer) else { return };
    assert!(bounds.first <= bounds.last.saturating_add(1), "{bounds:?}");
    let Ok(said) = serde_json::from_slice::<Value>(answer) else { crate::fail("it was no JSON") };
    assert_eq!(said["state"]["last_seq"].as_u64(), Some(bounds.last));
    if said["state"]["messages"] == 0 {
        assert!(bounds.window.is_none() && bounds.first == bounds.last.saturating_add(1), "{bounds:?}");
    }
}

fn found(answer: &[u8]) {
    let Ok(Some(event)) = nats::found(answer) else { return };
    let Ok(said) = serde_json::from_slice::<Value>(answer) else { crate::fail("it was no JSON") };
    assert!(said["error"].is_null(), "an error with an event");
    let message = &said["message"];
    assert_eq!((message["seq"].as_u64(), message["subject"].as_str()), (Some(event.seq), Some(event.subject.as_str())));
    assert_eq!(message["data"].as_str().unwrap_or_default(), STANDARD.encode(&event.payload));
}

fn message(headers: HeaderMap, payload: &[u8], status: Option<StatusCode>) -> Message {
    Message {
        subject: "_INBOX.1".into(),
        reply: None,
        payload: Bytes::copy_from_slice(payload),
        headers: (!headers.is_empty()).then_some(headers),
        status,
        description: None,
        length: payload.len(),
    }
}

fn piece(input: &[u8], status: Option<StatusCode>) {
    let [lines, payload] = split(input);
    let mut headers = headers(&text(lines));
    if let Some((event, _)) = nats::piece(STREAM, message(headers.clone(), payload, status)) {
        assert!(status.is_none(), "a status is no event");
        let last = |name| headers.get_last(name).map(async_nats::HeaderValue::as_str).unwrap_or_default();
        assert_eq!((last("Nats-Stream"), last("Nats-Subject"), &event.payload[..]), (STREAM, event.subject.as_str(), payload));
        assert_eq!(last("Nats-Sequence").parse(), Ok(event.seq));
    }
    // Whatever a publisher wrote before, what the server adds counts.
    for (name, value) in [
        ("Nats-Stream", STREAM),
        ("Nats-Subject", "wa.acme.a1.chats"),
        ("Nats-Sequence", "7"),
        ("Nats-Time-Stamp", "1970-01-01T00:00:01.000000002Z"),
        ("Nats-Num-Pending", "1"),
        ("Nats-Last-Sequence", "3"),
    ] {
        headers.append(name, value);
    }
    let piece = nats::piece(STREAM, message(headers, payload, status));
    assert_eq!(piece.is_none(), status.is_some(), "the server's own marks are not seen");
    if let Some((event, before)) = piece {
        let stored_at = Duration::new(1, 2);
        assert_eq!((event.subject.as_str(), event.seq, event.stored_at, before), ("wa.acme.a1.chats", 7, stored_at, 3));
    }
}
