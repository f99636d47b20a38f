//! Which reading, then its parts, with zero bytes between them.

use std::str::FromStr as _;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message, StatusCode};
use bytes::Bytes;
use daisi_ws_domain::event::StreamId;
use daisi_ws_service::adapters::nats::fuzzing as nats;
use tokio::time::Instant;

use crate::input::{Input, split, text};

const STREAM: StreamId = StreamId(7);

pub(in super::super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    match input.byte() % 4 {
        0 => message(input.rest(), None),
        1 => {
            let status = 100 + 100 * u16::from(input.byte() % 5) + u16::from(input.byte() % 16);
            message(input.rest(), StatusCode::from_u16(status).ok());
        }
        2 => subjects(input.rest()),
        _ => names(input.rest()),
    }
}

/// Headers, one a line; what can't be one is left out.
pub(super) fn headers(lines: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.lines() {
        if let Some((name, value)) = line.split_once(':')
            && let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

fn message(input: &[u8], status: Option<StatusCode>) {
    let [subject, reply, lines, description, payload] = split(input);
    let (subject, reply) = (text(subject), text(reply));
    let headers = headers(&text(lines));
    let description = text(description);
    let message = Message {
        subject: subject.to_string().into(),
        reply: (!reply.is_empty()).then(|| reply.to_string().into()),
        payload: Bytes::copy_from_slice(payload),
        headers: (!headers.is_empty()).then_some(headers),
        status,
        description: (!description.is_empty()).then(|| description.to_string()),
        length: input.len(),
    };
    if let Some(seq) = nats::delivered_too_often(&message) {
        assert!(text(payload).contains(&seq.to_string()) || payload.contains(&b'e'), "a sequence that nobody named");
    }
    let Ok(event) = nats::event(message, STREAM, Instant::now()) else { return };
    assert!(status.is_none(), "a status is no event");
    assert_eq!((&*event.subject, &event.payload[..], event.stream), (&*subject, payload, STREAM));
    // Settlements go back to where it came from, and nowhere else.
    assert_eq!(event.ack_token.0, reply);
    let told = reply.strip_prefix(nats::ACK_PREFIX).unwrap_or_else(|| crate::fail("an event that nobody can settle"));
    let tokens: Vec<_> = told.split('.').collect();
    let numbers = &tokens[if tokens.len() == 7 { 2 } else { 4 }..];
    assert_eq!(numbers[0].parse(), Ok(event.delivery.count));
    assert_eq!(numbers[1].parse(), Ok(event.seq));
    assert_eq!(numbers[3].parse().map(std::time::Duration::from_nanos), Ok(event.stored_at));
    for passed_on in [&event.request_id, &event.traceparent].into_iter().flatten() {
        let fits = (1..=256).contains(&passed_on.len()) && passed_on.bytes().all(|byte| byte.is_ascii_graphic());
        assert!(fits && text(lines).contains(passed_on.as_str()), "{passed_on:?}");
    }
}

/// Is it a subject, perhaps with wildcards?
fn is_subject(text: &str) -> bool {
    let tokens: Vec<_> = text.split('.').collect();
    let (last, before) = tokens.split_last().unwrap_or((&"", &[]));
    !last.is_empty() && before.iter().all(|token| !token.is_empty() && *token != ">")
}

/// Does a subject with wildcards match one without, by the definition?
fn matches(wide: &[&str], narrow: &[&str]) -> bool {
    match (wide, narrow) {
        ([">"], [_, ..]) => true,
        ([one, wide @ ..], [other, narrow @ ..]) => (*one == "*" || one == other) && matches(wide, narrow),
        (wide, narrow) => wide.is_empty() && narrow.is_empty(),
    }
}

fn subjects(input: &[u8]) {
    let parts: [_; 3] = split(input);
    let parts = parts.map(text);
    if !parts.iter().all(|part| is_subject(part)) {
        // What is none is compared without a panic.
        let _ = (nats::covers(&parts[0], &parts[1]), nats::overlap(&parts[0], &parts[1]));
        return;
    }
    let [a, b, c] = &parts;
    assert!(nats::covers(a, a) && nats::overlap(a, a) && nats::covers(">", a));
    assert_eq!(nats::overlap(a, b), nats::overlap(b, a), "{a} and {b}");
    assert!(!nats::covers(a, b) || nats::overlap(a, b), "{a} covers {b} and does not overlap");
    assert!(!(nats::covers(a, b) && nats::covers(b, c)) || nats::covers(a, c), "{a} covers {b}, which covers {c}");
    assert!(!(nats::covers(a, b) && nats::overlap(b, c)) || nats::overlap(a, c), "{a} covers {b}, which overlaps with {c}");
    if !c.split('.').any(|token| ["*", ">"].contains(&token)) {
        let [a, b, c]: [Vec<_>; 3] = [a, b, c].map(|subject| subject.split('.').collect());
        let [by_a, by_b] = [&a, &b].map(|wide| matches(wide, &c));
        assert_eq!(nats::covers(&parts[0], &parts[2]), by_a);
        assert_eq!(nats::overlap(&parts[0], &parts[2]), by_a);
        assert!(!(by_a && by_b) || nats::overlap(&parts[0], &parts[1]), "one subject that both match, and no overlap");
        assert!(!(nats::covers(&parts[0], &parts[1]) && by_b) || by_a);
    }
}

fn names(input: &[u8]) {
    let [file, url] = split(input);
    let (file, url) = (text(file), text(url));
    for name in ["JWT", "NKEY SEED"] {
        if let Some(line) = nats::credential(&file, name) {
            assert!(!line.is_empty() && !line.starts_with("---") && file.lines().any(|other| other.trim() == line));
        }
    }
    match nats::servers(&url) {
        Ok(servers) => {
            assert!(!servers.is_empty() && servers.len() <= 1 + url.matches(',').count());
            for server in &servers {
                let host = server.split("://").nth(1).unwrap_or_default();
                assert!(!host.is_empty() && !host.split(['/', '?', '#']).next().unwrap_or_default().contains('@'), "{server}");
            }
            assert_eq!(nats::servers(&servers.join(",")).as_ref(), Ok(&servers), "they are read otherwise the second time");
        }
        // A password stands between the first colon behind the scheme and the last `@`.
        Err(error) => {
            let password = url.rsplit_once('@').and_then(|(before, _)| Some(before.rsplit_once(':')?.1));
            if let Some(password) = password.filter(|password| password.len() >= 8 && !password.contains([',', '/', ' '])) {
                assert!(!error.contains(password), "{error}");
            }
        }
    }
}
