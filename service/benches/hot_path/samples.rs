//! An event as publishers send them.

use std::time::Duration;

use bytes::Bytes;
use daisi_ws_domain::event::{Address, Event, Payload, StreamId};

/// The first token of subjects.
pub(crate) const PREFIX: &str = "wa";
/// A chat of the list changed.
pub(crate) const CHATS: &str = "wa.acme.agent-7.chats";
/// A message in one chat, whose id has dots.
pub(crate) const MESSAGES: &str = "wa.acme.agent-7.messages.62811200345@s.whatsapp.net";

/// A message's payload, about 400 bytes.
pub(crate) fn payload() -> Bytes {
    Bytes::from_static(
        br#"{"event_id":"26/3F2A11B8:messages:msg-9f31","event_time":"2026-03-02T08:15:42.118Z","company_id":"acme","agent_id":"agent-7","message_id":"msg-9f31","chat_id":"62811200345@s.whatsapp.net","row_data":{"id":9007199254740993,"from":"62811200345@s.whatsapp.net","to":"agent-7","flow":"inbound","message_obj":{"conversation":"Halo kak, pesanan #4471 sudah dikirim?"},"status":"delivered","is_deleted":false,"message_timestamp":1772439342118}}"#,
    )
}

/// The event with that sequence, on a subject.
pub(crate) fn event(subject: &str, seq: u64) -> Event {
    Event {
        address: Address::parse(PREFIX, subject).unwrap(),
        payload: Payload::parse(&payload()).unwrap(),
        stream: StreamId(1),
        seq,
        stored_at: Duration::from_secs(1_772_439_342),
        request_id: None,
        traceparent: None,
    }
}
