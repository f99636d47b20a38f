//! What peers send, for `service/fuzz`: read as calls and answers read it. A refusal is its text.

use std::time::Duration;

use daisi_ws_domain::{event::Event, peer::PodRecord};
use daisi_ws_proto::dws_message_fwd as wire;

use super::{
    convert,
    legacy::event_from_push,
    proof::{CallProof, verify_previous},
};
use crate::{application::fleet::key::FleetKey, ports::RouteGap};

/// The event of a batch's message.
///
/// # Errors
/// When it is none.
pub fn event(message: wire::ForwardedEvent) -> Result<Event, String> {
    convert::event_from_wire(message).map_err(|bad| bad.to_string())
}

/// The message of an event.
#[must_use]
pub fn event_message(event: &Event) -> wire::ForwardedEvent {
    convert::event_to_wire(event)
}

/// The event of a predecessor's call, as of `now`.
///
/// # Errors
/// When it is none.
pub fn push_event(request: wire::PushEventRequest, now: Duration) -> Result<Event, String> {
    event_from_push(request, now).map_err(|bad| bad.to_string())
}

/// The gap of a message.
///
/// # Errors
/// When its route is none.
pub fn gap(message: &wire::RouteGap) -> Result<RouteGap, String> {
    convert::route_gap_from_wire(message).map_err(|bad| bad.to_string())
}

/// The message of a gap.
#[must_use]
pub fn gap_message(gap: &RouteGap) -> wire::RouteGap {
    convert::route_gap_to_wire(gap)
}

/// A gap that came alone, as one of many.
#[must_use]
pub fn single_gap(message: wire::AnnounceGapRequest) -> wire::RouteGap {
    convert::single_gap(message)
}

/// The pod of a message.
///
/// # Errors
/// When nobody could dial it, or its id is none.
pub fn pod(message: &wire::Pod) -> Result<PodRecord, String> {
    convert::pod_from_wire(message).map_err(|bad| bad.to_string())
}

/// The message of a pod.
#[must_use]
pub fn pod_message(pod: &PodRecord) -> wire::Pod {
    convert::pod_to_wire(pod)
}

/// A call's proof, written as this pod writes it; none if the text is no proof.
#[must_use]
pub fn proof_again(text: &[u8]) -> Option<String> {
    CallProof::parse(text).map(|proof| proof.header())
}

/// Does the text prove the call of `path` to `me` at `now`?
#[must_use]
pub fn proves(key: &FleetKey, path: &str, me: &PodRecord, text: &[u8], now: Duration) -> bool {
    CallProof::parse(text).is_some_and(|proof| proof.verify(key, path, me).is_ok() && proof.is_of(now))
}

/// Does the text prove a call as the version before did?
#[must_use]
pub fn proves_as_before(key: &FleetKey, text: &[u8], now: Duration) -> bool {
    verify_previous(key, text, now).is_ok()
}
