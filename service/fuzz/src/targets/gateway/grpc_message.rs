//! Which message, then its bytes, as gRPC hands them over.

use bytes::Bytes;
use daisi_ws_domain::event::{Event, StreamId};
use daisi_ws_proto::dws_message_fwd as wire;
use daisi_ws_service::adapters::grpc::fuzzing as grpc;
use prost::Message;

use super::NOW;
use crate::{input::Input, must};

/// Longest request id and trace context.
const MAX_CONTEXT: usize = 256;

pub(in super::super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let kind = input.byte();
    let bytes = Bytes::copy_from_slice(input.rest());
    match kind % 8 {
        0 => read(bytes, |batch: wire::PushBatchRequest| batch.events.into_iter().for_each(event)),
        1 => read(bytes, push_event),
        2 => read(bytes, |gaps: wire::AnnounceGapsRequest| gaps.gaps.iter().for_each(gap)),
        3 => read(bytes, |alone: wire::AnnounceGapRequest| gap(&grpc::single_gap(alone))),
        4 => read(bytes, |hello: wire::IntroduceRequest| hello.source.iter().for_each(pod)),
        5 => read(bytes, |hello: wire::IntroduceResponse| hello.pods.iter().for_each(pod)),
        6 => read(bytes, |_: wire::PushBatchResponse| {}),
        _ => read(bytes, |_: wire::HoldsSocketsRequest| {}),
    }
}

/// Reads a message. What is written of it is read as the same.
fn read<M: Message + Default>(bytes: Bytes, then: impl FnOnce(M)) {
    let Ok(message) = M::decode(bytes) else { return };
    let written = message.encode_to_vec();
    let again = must(M::decode(Bytes::from(written.clone())), "what was written");
    assert_eq!(again.encode_to_vec(), written, "a message is written otherwise the second time");
    then(message);
}

fn event(message: wire::ForwardedEvent) {
    let Ok(event) = grpc::event(message) else { return };
    let back = must(grpc::event(grpc::event_message(&event)), "an event that was written here");
    same(&event, &back);
    harmless(&event);
}

fn push_event(request: wire::PushEventRequest) {
    let target = (request.target_company_id.clone(), request.target_agent_id.clone(), request.target_chat_id.clone());
    let kind = request.payload.as_ref().map(|payload| payload.event_type.clone()).unwrap_or_default();
    let Ok(event) = grpc::push_event(request, NOW) else { return };
    // Whom it is for is what the target says, and nothing else in it.
    let chat = event.address.chat().map_or("", |chat| chat.as_str());
    assert_eq!((event.address.company().as_str(), event.address.agent().as_str(), chat), (&*target.0, &*target.1, &*target.2));
    assert_eq!(event.payload.has_event_type(), !kind.is_empty());
    assert_eq!((event.stream, event.seq, event.stored_at), (StreamId::UNKNOWN, 0, NOW));
    harmless(&event);
}

fn same(event: &Event, back: &Event) {
    assert_eq!((&event.address, &event.payload), (&back.address, &back.payload));
    assert_eq!((event.stream, event.seq, event.stored_at), (back.stream, back.seq, back.stored_at));
    assert_eq!((&event.request_id, &event.traceparent), (&back.request_id, &back.traceparent));
}

/// What goes into log lines and metadata can break neither.
fn harmless(event: &Event) {
    for text in [&event.request_id, &event.traceparent].into_iter().flatten() {
        let fits = (1..=MAX_CONTEXT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        assert!(fits, "{text:?} goes into log lines and metadata");
    }
}

fn gap(message: &wire::RouteGap) {
    let Ok(gap) = grpc::gap(message) else { return };
    assert_eq!(grpc::gap(&grpc::gap_message(&gap)), Ok(gap));
}

fn pod(message: &wire::Pod) {
    let Ok(pod) = grpc::pod(message) else { return };
    assert_eq!(grpc::pod(&grpc::pod_message(&pod)).as_ref(), Ok(&pod));
    let address = pod.address.as_bytes();
    assert!((1..=259).contains(&address.len()) && address.iter().all(u8::is_ascii_graphic), "nobody can dial {:?}", pod.address);
}
