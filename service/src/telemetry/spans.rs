//! Which events are traced, and their spans: publisher → `dispatch` → `forward` → `write`, one tree over the fleet.
//!
//! Whether an event is traced is decided once, where it is taken from the stream: by the publisher's `traceparent` if it has one,
//! else by the ratio. Only then is a span made: an event that is not traced costs a load and, without a `traceparent`, a random
//! number. A peer follows the decision that comes with the event and makes none of its own.

use std::sync::OnceLock;

use tracing::Span;

use super::context::{current_traceparent, set_parent};

/// Spans of this target are exported, and no others: those of sessions and pods live for hours, and would swallow every span
/// inside them.
pub(super) const TARGET: &str = "daisi_ws_service::traced";

/// The ratio, once traces are exported.
static RATIO: OnceLock<f64> = OnceLock::new();

/// Says that traces are exported from now on.
pub(super) fn enable(ratio: f64) {
    let _ = RATIO.set(ratio);
}

/// Shall what comes with this `traceparent` be traced, where nobody has decided before?
#[must_use]
pub(crate) fn decide(traceparent: Option<&str>) -> bool {
    RATIO.get().is_some_and(|ratio| traceparent.and_then(flag).unwrap_or_else(|| rand::random::<f64>() < *ratio))
}

/// Is what comes with this `traceparent` traced, by the sender's decision?
#[must_use]
pub fn follow(traceparent: Option<&str>) -> bool {
    RATIO.get().is_some() && traceparent.and_then(flag) == Some(true)
}

/// The sampled flag: the lowest bit of the fourth field. `None` if the text is none of the known shape; the parser proper judges
/// it later.
fn flag(traceparent: &str) -> Option<bool> {
    let digits = traceparent.as_bytes().get(52..55)?;
    let low = char::from(digits[2]).to_digit(16)?;
    (digits[0] == b'-').then_some(low & 1 == 1)
}

/// The connect of a socket, up to its session; by the browser's `traceparent` or the ratio.
#[must_use]
pub fn connect(traceparent: Option<&str>) -> Span {
    if !decide(traceparent) {
        return Span::none();
    }
    let span = tracing::info_span!(target: TARGET, "connect", otel.kind = "server");
    set_parent(&span, traceparent);
    span
}

/// An event from the pull to its settlement. `None` if it is not traced.
#[must_use]
pub fn dispatch(traceparent: Option<&str>, kind: &'static str, seq: u64, event_id: Option<&str>) -> Option<Span> {
    if !decide(traceparent) {
        return None;
    }
    let span = tracing::info_span!(
        target: TARGET, "dispatch", otel.kind = "consumer", event.kind = kind, event.seq = seq, event.id = event_id
    );
    set_parent(&span, traceparent);
    Some(span)
}

/// The handing over of an event to a peer, one call or two.
#[must_use]
pub fn forward(dispatch: &Span, peer: &str, batch: usize) -> Span {
    tracing::info_span!(target: TARGET, parent: dispatch, "forward", otel.kind = "client", peer.id = peer, batch.events = batch)
}

/// The write of an event to one socket, with the time that it waited in the mailbox and before.
#[must_use]
pub fn write(traceparent: &str, path: &'static str, seq: u64, age_ms: f64) -> Span {
    let span = tracing::info_span!(target: TARGET, "write", otel.kind = "producer", path, event.seq = seq, event.age_ms = age_ms);
    set_parent(&span, Some(traceparent));
    span
}

/// The `traceparent` that makes others children of this span.
#[must_use]
pub(crate) fn traceparent_of(span: &Span) -> Option<String> {
    span.in_scope(current_traceparent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_the_lowest_bit() {
        let with = |flags: &str| format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        assert_eq!((flag(&with("01")), flag(&with("00")), flag(&with("03"))), (Some(true), Some(false), Some(true)));
        for bad in ["", "nonsense", &with("0x"), &"ä".repeat(40)] {
            assert_eq!(flag(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_a_collector_nothing_is_traced() {
        assert!(!decide(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")) || RATIO.get().is_some());
    }
}
