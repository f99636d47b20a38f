use bytes::Bytes;
use daisi_ws_domain::event::{Address, Payload, StreamId};

use super::*;

fn event(bytes: usize, request_id: Option<&str>) -> Arc<Event> {
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes.saturating_sub(8)));
    Arc::new(Event {
        address: Address::parse("wa", "wa.a.b.chats").unwrap(),
        payload: Payload::parse(&Bytes::from(text)).unwrap(),
        stream: StreamId(1),
        seq: 1,
        stored_at: Duration::ZERO,
        request_id: request_id.map(ToOwned::to_owned),
        traceparent: None,
    })
}

#[test]
fn batches_are_bounded_in_count_and_bytes_and_never_empty() {
    assert_eq!(batch_len(&vec![event(8, None); MAX_BATCH_EVENTS + 1]), MAX_BATCH_EVENTS);
    assert_eq!(batch_len(&vec![event(MAX_BATCH_BYTES / 2, None); 5]), 2);
    assert_eq!(batch_len(&[event(MAX_BATCH_BYTES + 100, None), event(8, None)]), 1);
}

#[test]
fn metadata_names_a_request_only_where_all_events_share_it() {
    let id = |events: &[Arc<Event>]| shared(events, |event| event.request_id.as_deref()).map(ToOwned::to_owned);
    assert_eq!(id(&[event(8, Some("r")), event(8, Some("r"))]).as_deref(), Some("r"));
    assert_eq!(id(&[event(8, Some("r")), event(8, Some("s"))]), None);
    assert_eq!(id(&[event(8, Some("r")), event(8, None)]), None);
    assert_eq!(id(&[]), None);
}

#[test]
fn statuses_are_told_apart_by_what_a_caller_can_do() {
    let error = |code| peer_error(&Status::new(code, "why"));
    for code in [Code::Unavailable, Code::Cancelled] {
        assert!(matches!(error(code), PeerError::Unreachable(why) if why.to_string().ends_with(": why")), "{code:?}");
    }
    assert!(matches!(error(Code::DeadlineExceeded), PeerError::TimedOut));
    for code in [Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented] {
        assert!(matches!(error(code), PeerError::Refused(_)), "{code:?}");
    }
    for code in [Code::Internal, Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted] {
        assert!(matches!(error(code), PeerError::Failed(_)), "{code:?}");
    }
    assert!(matches!(peer_error(&Status::internal("x".repeat(9999))), PeerError::Failed(text) if text.to_string().len() < 300));
}
