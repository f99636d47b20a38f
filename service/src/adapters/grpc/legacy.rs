//! `PushEvent` as the predecessor's pods send it: the event as a structure instead of bytes, without its sequence.

use std::time::Duration;

use bytes::Bytes;
use daisi_ws_domain::{
    event::{Address, Event, Payload, StreamId},
    ids::{AgentId, ChatId, CompanyId},
};
use daisi_ws_proto::dws_message_fwd::{EnrichedEventPayloadMessage, PushEventRequest};
use prost_types::{Struct, value::Kind};
use serde_json::{Map, Number, Value};

use super::convert::BadMessage;

/// Up to here every integer has a `f64` of its own, so an integral number was an integer.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Why a `PushEvent` is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPushEvent {
    /// There is none.
    #[error("the payload is missing")]
    NoPayload,
    /// It, or whom it is for, is malformed.
    #[error(transparent)]
    Message(#[from] BadMessage),
}

/// The event of the message, as of `now`: it says neither its sequence nor when it was stored.
///
/// It is for whom the `target_*` fields say: with a chat, the sessions that selected it; without one, all of the company and
/// agent, but admins instead where `event_type` says `agent`, since users may not see those (an older pod never forwards one; a
/// forged one must not reach users).
pub(super) fn event_from_push(request: PushEventRequest, now: Duration) -> Result<Event, BadPushEvent> {
    let message = request.payload.ok_or(BadPushEvent::NoPayload)?;
    let company = CompanyId::parse(&request.target_company_id).map_err(BadMessage::from)?;
    let agent = AgentId::parse(&request.target_agent_id).map_err(BadMessage::from)?;
    let address = if !request.target_chat_id.is_empty() {
        let chat = ChatId::parse(&request.target_chat_id).map_err(BadMessage::from)?;
        Address::Messages { company, agent, chat }
    } else if matches!(message.event_type.as_str(), "agent" | "agents") {
        Address::Agents { company, agent }
    } else {
        Address::Chats { company, agent }
    };
    let payload = Payload::parse(&Bytes::from(json(message).to_string())).map_err(BadMessage::from)?;
    Ok(Event { address, payload, stream: StreamId::UNKNOWN, seq: 0, stored_at: now, request_id: None, traceparent: None })
}

/// The publisher's object, as far as the message still has it.
fn json(message: EnrichedEventPayloadMessage) -> Value {
    let required = [("event_id", message.event_id), ("company_id", message.company_id), ("event_time", message.event_time)];
    let optional = [
        ("agent_id", message.agent_id),
        ("message_id", message.message_id),
        ("chat_id", message.chat_id),
        ("event_type", message.event_type),
    ];
    let mut object = Map::new();
    for (key, text) in required.into_iter().chain(optional.into_iter().filter(|(_, text)| !text.is_empty())) {
        object.insert(key.to_owned(), text.into());
    }
    object.insert("row_data".to_owned(), struct_to_json(message.row_data.unwrap_or_default()));
    object.into()
}

fn struct_to_json(fields: Struct) -> Value {
    fields.fields.into_iter().map(|(key, value)| (key, value_to_json(value))).collect()
}

/// The depth of the recursion is bounded by the decoder, which refuses messages nested deeper than 100.
fn value_to_json(value: prost_types::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::NumberValue(number)) => number_to_json(number),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::StructValue(fields)) => struct_to_json(fields),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(value_to_json).collect(),
    }
}

/// A protobuf number is always a `f64`; JSON has no NaN and no infinity, so they become null.
fn number_to_json(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= EXACT_INTEGERS {
        #[expect(clippy::cast_possible_truncation, reason = "integral and within 2^53")]
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use prost_types::{ListValue, Value as Protobuf};

    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    fn request(event_type: &str, chat: &str) -> PushEventRequest {
        let number = |number| Protobuf { kind: Some(Kind::NumberValue(number)) };
        let list = ListValue { values: vec![number(1.5), Protobuf { kind: None }, number(f64::NAN)] };
        let fields = [
            ("count".to_owned(), number(9_007_199_254_740_991.0)),
            ("huge".to_owned(), number(1e300)),
            ("list".to_owned(), Protobuf { kind: Some(Kind::ListValue(list)) }),
            ("zero".to_owned(), number(-0.0)),
        ];
        PushEventRequest {
            payload: Some(EnrichedEventPayloadMessage {
                event_id: "e1".into(),
                company_id: "acme".into(),
                row_data: Some(Struct { fields: fields.into_iter().collect() }),
                event_time: "2026-01-02T03:04:05Z".into(),
                event_type: event_type.into(),
                ..Default::default()
            }),
            target_company_id: "acme".into(),
            target_agent_id: "a1".into(),
            target_chat_id: chat.into(),
            source_pod_id: "old".into(),
        }
    }

    #[test]
    fn the_structure_becomes_the_publishers_object_again() {
        let event = event_from_push(request("chat", ""), NOW).unwrap();
        let text = std::str::from_utf8(event.payload.bytes()).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        let expected = serde_json::json!({
            "event_id": "e1", "company_id": "acme", "event_time": "2026-01-02T03:04:05Z", "event_type": "chat",
            "row_data": {"count": 9_007_199_254_740_991_i64, "huge": 1e300, "list": [1.5, null, null], "zero": 0},
        });
        assert_eq!(value, expected);
        assert!(text.contains(":9007199254740991,"), "integers stay integers: {text}");
        assert!(!event.is_sequenced());
        assert_eq!(event.stored_at, NOW);
    }

    #[test]
    fn the_target_decides_who_sees_it_and_agent_events_never_reach_users() {
        let kind = |event_type, chat| event_from_push(request(event_type, chat), NOW).unwrap().address.kind().as_str();
        assert_eq!(kind("message", "c1"), "message");
        assert_eq!(kind("chat", ""), "chat");
        assert_eq!(kind("", ""), "chat");
        assert_eq!(kind("agent", ""), "agent");
        assert_eq!(kind("agents", ""), "agent");
    }

    #[test]
    fn an_empty_or_malformed_push_is_an_error() {
        assert_eq!(event_from_push(PushEventRequest::default(), NOW).unwrap_err(), BadPushEvent::NoPayload);
        let bare = PushEventRequest { payload: Some(EnrichedEventPayloadMessage::default()), ..Default::default() };
        assert!(matches!(event_from_push(bare, NOW), Err(BadPushEvent::Message(BadMessage::Id(_)))));
        for bad in ["*", "a.b", "a>b"] {
            let request = PushEventRequest { target_company_id: bad.into(), ..request("", "") };
            assert!(event_from_push(request, NOW).is_err(), "{bad}");
        }
        assert!(event_from_push(request("", "a b"), NOW).is_err());
    }
}
