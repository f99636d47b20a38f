//! Events, routes and gaps, to and from their messages. What comes in is parsed by the domain's types; nothing is trusted for its
//! sender.

use std::time::Duration;

use daisi_ws_domain::{
    event::{Address, Event, EventKind, Payload, PayloadError, StreamId},
    gap::{Gap, GapCause},
    ids::{AgentId, ChatId, CompanyId, IdError, PodId},
    peer::PodRecord,
    route::{RouteKey, Scope},
};
use daisi_ws_proto::dws_message_fwd as wire;

use crate::ports::RouteGap;

/// Longest request id and trace context that are passed on; a longer one is dropped, not cut. A trace context has 55 bytes.
pub(super) const MAX_CONTEXT_BYTES: usize = 256;

/// The longest `host:port`: a name of 253 bytes and a port.
const MAX_ADDRESS_BYTES: usize = 259;

/// Why a message is not what it should be. Names the field's kind, never its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMessage {
    /// A kind that does not exist (for us), or none.
    #[error("the kind of event is missing or unknown")]
    Kind,
    /// An id that could forge a key or a subject.
    #[error("bad id: {0}")]
    Id(#[from] IdError),
    /// A session of no kind.
    #[error("the session is missing or of an unknown kind")]
    Session,
    /// An address that nobody could dial.
    #[error("bad address")]
    Address,
    /// Bytes that no event has.
    #[error("bad payload: {0}")]
    Payload(#[from] PayloadError),
}

/// The message for a pod.
pub(super) fn pod_to_wire(pod: &PodRecord) -> wire::Pod {
    let started_at_unix_millis = u64::try_from(pod.started_at.as_millis()).unwrap_or(u64::MAX);
    wire::Pod { pod_id: pod.id.to_string(), address: pod.address.clone(), started_at_unix_millis }
}

/// The pod of a message.
pub(super) fn pod_from_wire(message: &wire::Pod) -> Result<PodRecord, BadMessage> {
    let dialable = !message.address.is_empty()
        && message.address.len() <= MAX_ADDRESS_BYTES
        && message.address.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#".contains(&byte));
    if !dialable {
        return Err(BadMessage::Address);
    }
    let started_at = Duration::from_millis(message.started_at_unix_millis);
    Ok(PodRecord { id: PodId::parse(&message.pod_id)?, address: message.address.clone(), started_at })
}

/// The message for an event. The payload's bytes are shared, not copied.
pub(super) fn event_to_wire(event: &Event) -> wire::ForwardedEvent {
    wire::ForwardedEvent {
        kind: kind_to_wire(event.address.kind()).into(),
        company_id: event.address.company().to_string(),
        agent_id: event.address.agent().to_string(),
        chat_id: event.address.chat().map(ToString::to_string).unwrap_or_default(),
        payload: event.payload.bytes().clone(),
        stream_sequence: event.seq,
        stored_at_unix_nanos: saturating_i64(event.stored_at.as_nanos().cast_signed()),
        request_id: event.request_id.clone().unwrap_or_default(),
        traceparent: event.traceparent.clone().unwrap_or_default(),
        stream_created_unix_nanos: saturating_i64(event.stream.0),
    }
}

/// The event of a message.
pub(super) fn event_from_wire(message: wire::ForwardedEvent) -> Result<Event, BadMessage> {
    Ok(Event {
        address: address(message.kind, &message.company_id, &message.agent_id, &message.chat_id)?,
        payload: Payload::parse(&message.payload)?,
        stream: StreamId(message.stream_created_unix_nanos.into()),
        seq: message.stream_sequence,
        stored_at: Duration::from_nanos(u64::try_from(message.stored_at_unix_nanos).unwrap_or(0)),
        request_id: context(message.request_id),
        traceparent: context(message.traceparent),
    })
}

/// A request id or trace context, if it is there, of a sane length, and harmless in a log line or in metadata: what comes from the
/// stream is held to the same.
pub(super) fn context(text: String) -> Option<String> {
    let fits = (1..=MAX_CONTEXT_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(text)
}

/// The message for one of many gaps.
pub(super) fn route_gap_to_wire(RouteGap { route, gap }: &RouteGap) -> wire::RouteGap {
    wire::RouteGap {
        route: route.as_ref().map(route_to_wire),
        dropped: gap.dropped,
        first_sequence: gap.first_seq,
        last_sequence: gap.last_seq,
        cause: cause_to_wire(gap.cause).into(),
    }
}

/// The message for a gap alone.
pub(super) fn gap_to_wire(from: &PodId, gap: &RouteGap) -> wire::AnnounceGapRequest {
    let wire::RouteGap { route, dropped, first_sequence, last_sequence, cause } = route_gap_to_wire(gap);
    wire::AnnounceGapRequest { source_pod_id: from.to_string(), route, dropped, first_sequence, last_sequence, cause }
}

/// A gap that came alone, as one of many.
pub(super) fn single_gap(message: wire::AnnounceGapRequest) -> wire::RouteGap {
    let wire::AnnounceGapRequest { source_pod_id: _, route, dropped, first_sequence, last_sequence, cause } = message;
    wire::RouteGap { route, dropped, first_sequence, last_sequence, cause }
}

/// The gap of a message, and whose it is.
pub(super) fn route_gap_from_wire(message: &wire::RouteGap) -> Result<RouteGap, BadMessage> {
    let route = message.route.as_ref().map(route_from_wire).transpose()?;
    Ok(RouteGap { route, gap: gap_from_wire(message) })
}

/// A cause that we don't know yet counts as given up: that is why peers announce gaps.
fn gap_from_wire(message: &wire::RouteGap) -> Gap {
    let cause = match message.cause() {
        wire::GapCause::SlowClient => GapCause::SlowClient,
        wire::GapCause::PodResumed => GapCause::PodResumed,
        wire::GapCause::GivenUp | wire::GapCause::Unspecified => GapCause::GivenUp,
    };
    // Pods of before said 0 where they meant that they don't know.
    let known = |seq: Option<u64>| seq.filter(|seq| *seq > 0);
    Gap { dropped: message.dropped, first_seq: known(message.first_sequence), last_seq: known(message.last_sequence), cause }
}

/// The route of a message.
fn route_from_wire(message: &wire::GapRoute) -> Result<RouteKey, BadMessage> {
    if wire::EventKind::try_from(message.kind) == Ok(wire::EventKind::Agent) {
        let company = scope(&message.company_id, CompanyId::parse)?;
        let agent = scope(&message.agent_id, AgentId::parse)?;
        return Ok(RouteKey::Agents { company, agent });
    }
    Ok(match address(message.kind, &message.company_id, &message.agent_id, &message.chat_id)? {
        Address::Chats { company, agent } => RouteKey::Chats { company, agent },
        Address::Messages { company, agent, chat } => RouteKey::Messages { company, agent, chat },
        Address::Agents { company, agent } => RouteKey::Agents { company: Scope::Only(company), agent: Scope::Only(agent) },
    })
}

fn route_to_wire(route: &RouteKey) -> wire::GapRoute {
    let (kind, company, agent, chat) = match route {
        RouteKey::Chats { company, agent } => (EventKind::Chat, company.as_str(), agent.as_str(), ""),
        RouteKey::Messages { company, agent, chat } => (EventKind::Message, company.as_str(), agent.as_str(), chat.as_str()),
        RouteKey::Agents { company, agent } => (EventKind::Agent, company.as_str(), agent.as_str(), ""),
    };
    wire::GapRoute {
        kind: kind_to_wire(kind).into(),
        company_id: company.to_owned(),
        agent_id: agent.to_owned(),
        chat_id: chat.to_owned(),
    }
}

fn address(kind: i32, company: &str, agent: &str, chat: &str) -> Result<Address, BadMessage> {
    let (company, agent) = (CompanyId::parse(company)?, AgentId::parse(agent)?);
    match wire::EventKind::try_from(kind) {
        Ok(wire::EventKind::Chat) => Ok(Address::Chats { company, agent }),
        Ok(wire::EventKind::Message) => Ok(Address::Messages { company, agent, chat: ChatId::parse(chat)? }),
        Ok(wire::EventKind::Agent) => Ok(Address::Agents { company, agent }),
        Ok(wire::EventKind::Unspecified) | Err(_) => Err(BadMessage::Kind),
    }
}

fn scope<T>(text: &str, parse: impl Fn(&str) -> Result<T, IdError>) -> Result<Scope<T>, IdError> {
    if text == "*" { Ok(Scope::Any) } else { parse(text).map(Scope::Only) }
}

fn kind_to_wire(kind: EventKind) -> wire::EventKind {
    match kind {
        EventKind::Chat => wire::EventKind::Chat,
        EventKind::Message => wire::EventKind::Message,
        EventKind::Agent => wire::EventKind::Agent,
    }
}

fn cause_to_wire(cause: GapCause) -> wire::GapCause {
    match cause {
        GapCause::SlowClient => wire::GapCause::SlowClient,
        GapCause::GivenUp => wire::GapCause::GivenUp,
        GapCause::PodResumed => wire::GapCause::PodResumed,
    }
}

/// Nanoseconds as the wire has them: 64 bits last until the year 2262.
fn saturating_i64(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(subject: &str) -> Event {
        Event {
            address: Address::parse("wa", subject).unwrap(),
            payload: Payload::parse(&Bytes::from_static(br#"{"z":9007199254740993,"a":1}"#)).unwrap(),
            stream: StreamId(1_700_000_000_123_456_789),
            seq: u64::MAX,
            stored_at: Duration::from_nanos(1_700_000_001_000_000_001),
            request_id: Some("r-1".into()),
            traceparent: None,
        }
    }

    #[test]
    fn an_event_comes_back_as_it_went() {
        for subject in ["wa.a.b.chats", "wa.a.b.messages.c@x.y:1", "wa.a.b.agents"] {
            let event = event(subject);
            let back = event_from_wire(event_to_wire(&event)).unwrap();
            assert_eq!(back.address, event.address);
            assert_eq!(back.payload, event.payload);
            assert_eq!((back.stream, back.seq, back.stored_at), (event.stream, event.seq, event.stored_at));
            assert_eq!((back.request_id, back.traceparent), (event.request_id, event.traceparent));
        }
        assert_eq!(
            event_from_wire(event_to_wire(&Event { stream: StreamId::UNKNOWN, ..event("wa.a.b.chats") })).unwrap().stream,
            StreamId::UNKNOWN
        );
    }

    #[test]
    fn a_pod_comes_back_as_it_went_and_one_that_nobody_could_dial_is_refused() {
        let pod =
            PodRecord { id: PodId::parse("p").unwrap(), address: "[fd00::1]:50051".into(), started_at: Duration::from_millis(7) };
        assert_eq!(pod_from_wire(&pod_to_wire(&pod)), Ok(pod.clone()));
        for address in ["", "a b:1", "a/b:1", "user@a:1", &"a".repeat(300)] {
            let bad = wire::Pod { address: address.to_owned(), ..pod_to_wire(&pod) };
            assert_eq!(pod_from_wire(&bad), Err(BadMessage::Address), "{address}");
        }
        assert!(matches!(pod_from_wire(&wire::Pod { pod_id: "a/b".into(), ..pod_to_wire(&pod) }), Err(BadMessage::Id(_))));
    }

    #[test]
    fn routes_and_gaps_come_back_as_they_went() {
        let (company, agent) = (CompanyId::parse("a").unwrap(), AgentId::parse("b").unwrap());
        let routes = [
            RouteKey::Chats { company: company.clone(), agent: agent.clone() },
            RouteKey::Messages { company: company.clone(), agent: agent.clone(), chat: ChatId::parse("c.d").unwrap() },
            RouteKey::Agents { company: Scope::Any, agent: Scope::Only(agent) },
            RouteKey::Agents { company: Scope::Only(company), agent: Scope::Any },
        ];
        for route in routes {
            assert_eq!(route_from_wire(&route_to_wire(&route)), Ok(route.clone()));
            let pending = RouteGap { route: Some(route), gap: Gap::of(7, GapCause::GivenUp) };
            assert_eq!(route_gap_from_wire(&route_gap_to_wire(&pending)), Ok(pending));
        }
        let pod = PodId::parse("p").unwrap();
        for gap in [Gap::of(0, GapCause::GivenUp), Gap::of(7, GapCause::SlowClient), Gap::unknown(GapCause::PodResumed)] {
            let pending = RouteGap { route: None, gap };
            assert_eq!(route_gap_from_wire(&single_gap(gap_to_wire(&pod, &pending))), Ok(pending));
        }
    }

    #[test]
    fn a_gap_of_a_pod_that_says_0_for_unknown_has_no_range() {
        let message = wire::RouteGap { dropped: Some(2), first_sequence: Some(0), last_sequence: Some(0), ..Default::default() };
        let gap = gap_from_wire(&message);
        assert_eq!((gap.dropped, gap.first_seq, gap.last_seq), (Some(2), None, None));
    }

    #[test]
    fn a_request_id_or_trace_context_that_could_break_a_log_line_is_dropped() {
        let good = event_to_wire(&event("wa.a.b.chats"));
        for bad in ["r\n1", "a b", "a\u{7}", "\u{fc}mlaut", "", &"x".repeat(MAX_CONTEXT_BYTES + 1)] {
            let message = wire::ForwardedEvent { request_id: bad.to_owned(), traceparent: bad.to_owned(), ..good.clone() };
            let event = event_from_wire(message).unwrap();
            assert_eq!((event.request_id, event.traceparent), (None, None), "{bad:?}");
        }
        assert_eq!(event_from_wire(good).unwrap().request_id.as_deref(), Some("r-1"));
    }

    #[test]
    fn malformed_events_are_told_apart_and_none_panics() {
        let good = event_to_wire(&event("wa.a.b.messages.c"));
        let with = |change: fn(&mut wire::ForwardedEvent)| {
            let mut message = good.clone();
            change(&mut message);
            event_from_wire(message).map(|_| ())
        };
        assert_eq!(with(|m| m.kind = 0), Err(BadMessage::Kind));
        assert_eq!(with(|m| m.kind = 99), Err(BadMessage::Kind));
        assert!(matches!(with(|m| m.company_id = "*".into()), Err(BadMessage::Id(_))));
        assert!(matches!(with(|m| m.agent_id = "a:b".into()), Err(BadMessage::Id(_))));
        assert!(matches!(with(|m| m.chat_id.clear()), Err(BadMessage::Id(_))));
        assert!(matches!(with(|m| m.payload = Bytes::from_static(b"[]")), Err(BadMessage::Payload(_))));
        assert_eq!(with(|m| m.stored_at_unix_nanos = -1), Ok(()));
        assert_eq!(with(|m| m.request_id = "x".repeat(10_000)), Ok(()));
    }
}
