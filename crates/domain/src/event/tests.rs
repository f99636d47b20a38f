use super::*;

fn payload(text: &str) -> Result<Payload, PayloadError> {
    Payload::parse(&Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn a_chat_id_is_the_whole_tail_of_the_subject() {
    let address = Address::parse("wa", "wa.acme.agent-7.messages.62811@s.whatsapp.net").unwrap();
    assert_eq!(address.chat().unwrap().as_str(), "62811@s.whatsapp.net");
    assert_eq!(address.subject("wa"), "wa.acme.agent-7.messages.62811@s.whatsapp.net");
}

#[test]
fn subjects_of_another_shape_are_refused() {
    for subject in [
        "wa",
        "wa.a",
        "wa.a.b",
        "wa.a.b.c",
        "wa.a.b.chats.x",
        "wa.a.b.messages",
        "wa.a.b.messages.",
        "wa..b.chats",
        "wax.a.b.chats",
        "x.a.b.chats",
        "wa.*.b.chats",
    ] {
        assert!(Address::parse("wa", subject).is_err(), "{subject}");
    }
}

#[test]
fn an_event_of_an_unknown_stream_is_not_sequenced() {
    let mut event = Event {
        address: Address::parse("wa", "wa.a.b.chats").unwrap(),
        payload: payload("{}").unwrap(),
        stream: StreamId(0),
        seq: 0,
        stored_at: Duration::ZERO,
        request_id: None,
        traceparent: None,
    };
    assert!(event.is_sequenced());
    event.stream = StreamId::UNKNOWN;
    assert!(!event.is_sequenced());
}

#[test]
fn an_agent_event_is_covered_by_four_scopes() {
    let routes = Address::parse("wa", "wa.acme.a1.agents").unwrap().routes();
    assert_eq!(routes.len(), 4);
}

#[test]
fn a_payload_is_kept_byte_for_byte() {
    let text = r#"{"id": 9007199254740993, "z":1,"a":{"event_type":"inner"}}"#;
    let parsed = payload(&format!(" \n{text}\t")).unwrap();
    assert_eq!(parsed.bytes().as_ref(), text.as_bytes());
    assert!(!parsed.has_event_type());
    assert!(payload(r#"{"event\u005ftype":"x"}"#).unwrap().has_event_type());
}

#[test]
fn time_and_id_of_an_event_are_read_where_they_are_well_formed() {
    let parsed =
        payload(r#"{"a":[1,{"event_id":"inner"}],"event_time":"2026-01-02T03:04:05.5+01:00","event_id":"e-1"}"#).unwrap();
    assert_eq!(parsed.event_time(), Some(Duration::from_millis(1_767_319_445_500)));
    assert_eq!(parsed.event_id(), Some("e-1"));
    for odd in [
        "{}",
        r#"{"event_time":null,"event_id":7}"#,
        r#"{"event_time":"yesterday","event_id":"a b"}"#,
        r#"{"event_time":"1960-01-01T00:00:00Z","event_id":""}"#,
        r#"{"event_time":{"$date":1},"event_id":"a\u0062"}"#,
        r#"{"event_time":["2026-01-02T03:04:05Z"],"event_id":["x"]}"#,
    ] {
        let parsed = payload(odd).unwrap();
        assert_eq!((parsed.event_time(), parsed.event_id()), (None, None), "{odd}");
    }
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    for text in ["", "[]", "1", "null", "{", "{}{}", "{} x", "{\"a\":}", "\"{}\""] {
        assert_eq!(payload(text), Err(PayloadError::NotAnObject), "{text:?}");
    }
    assert_eq!(Payload::parse(&Bytes::from_static(b"{\"a\":\"\xff\"}")), Err(PayloadError::NotUtf8));
}

#[test]
fn deep_nesting_neither_overflows_nor_panics() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let _ = payload(&deep);
}
