//! The payload of an event.

use std::time::Duration;

use bytes::Bytes;
use daisi_ws_domain::{
    event::{Address, Event, Payload, PayloadError, StreamId},
    frame::{Frame, Stamp},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::must;

/// Longest `event_id` that is shown.
const MAX_EVENT_ID: usize = 128;
/// What a frame has around a payload, at most.
const ENVELOPE: usize = 96;

/// A frame as a client reads it.
#[derive(Deserialize)]
struct Shown<'a> {
    r#type: &'a str,
    seq: u64,
    #[serde(borrow)]
    payload: &'a RawValue,
}

pub(super) fn check(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let json: Option<Value> = serde_json::from_slice(input).ok();
    let payload = match Payload::parse(&bytes) {
        Ok(payload) => payload,
        Err(error) => {
            assert!(!json.is_some_and(|json| json.is_object()), "an object is refused: {error}");
            assert_eq!(error == PayloadError::NotUtf8, std::str::from_utf8(input).is_err());
            return;
        }
    };
    let kept = payload.bytes();
    assert!(kept.starts_with(b"{") && kept.ends_with(b"}"));
    assert_eq!(input.trim_ascii(), &kept[..], "something else than the white space around it is gone");
    assert_eq!(Payload::parse(kept).as_ref(), Ok(&payload), "it reads otherwise the second time");
    if let Some(json) = &json {
        // Numbers beyond a double and half escapes are none for this reader; browsers take them.
        let object = json.as_object().unwrap_or_else(|| crate::fail("something else than an object is taken"));
        assert_eq!(payload.has_event_type(), object.contains_key("event_type"));
        if let Some(id) = payload.event_id() {
            assert_eq!(object["event_id"], id);
        }
        if payload.event_time().is_some() {
            assert!(object["event_time"].is_string());
        }
    }
    if let Some(id) = payload.event_id() {
        assert!((1..=MAX_EVENT_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id:?}");
    }
    show(payload);
}

/// What sockets are sent of it.
fn show(payload: Payload) {
    let event = Event {
        address: must(Address::parse("wa", "wa.a.b.chats"), "an address"),
        payload,
        stream: StreamId(1),
        seq: 7,
        stored_at: Duration::ZERO,
        request_id: None,
        traceparent: None,
    };
    let frame = Frame::event(&event, Stamp { safe: Some(5), replayed: true });
    let kept = event.payload.bytes();
    assert!(frame.bytes().len() <= kept.len() + ENVELOPE, "a frame of {} bytes for {}", frame.bytes().len(), kept.len());
    let shown: Shown<'_> = must(serde_json::from_slice(frame.bytes()), "a frame is JSON");
    assert_eq!((shown.r#type, shown.seq), ("event", 7));
    // The publisher's bytes, but for the type that is put before the last of them.
    let text = shown.payload.get().as_bytes();
    assert!(text.starts_with(&kept[..kept.len() - 1]) && text.ends_with(b"}"));
    let read = must(Payload::parse(&Bytes::copy_from_slice(text)), "what is shown is a payload");
    assert!(read.has_event_type(), "what is shown has no type");
    assert_eq!((read.event_id(), read.event_time()), (event.payload.event_id(), event.payload.event_time()));
}
