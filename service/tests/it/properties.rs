//! What holds for any input: of the HTTP doors, and of the domain that everything from outside passes through.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request},
};
use bytes::Bytes;
use daisi_ws_domain::frame::Stamp;
use daisi_ws_domain::{
    claims::{AdminClaims, UserClaims},
    event::{Address, Event, Payload, StreamId},
    frame::{ClientFrame, Frame},
    ids::{AdminId, AgentId, ChatId, CompanyId, ConnectionId, PodId, UserId},
    route::{RouteKey, Scope},
    session::LockOwner,
};
use daisi_ws_service::{
    adapters::http::{HttpParts, router},
    application::admission::throttle::Throttle,
    metrics::Metrics,
    readiness::Readiness,
    runtime::lifecycle::{Shutdown, Tasks},
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use proptest::{collection::vec, prelude::*};
use serde_json::Value;
use tokio::sync::watch;

use crate::support::fixture::{self, API_KEY};

// ---- the doors
// -------------------------------------------------------------------------------------------------------------------

fn app(runtime: &tokio::runtime::Runtime) -> Router {
    let _inside = runtime.enter();
    let metrics = Arc::new(Metrics::new().unwrap());
    let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::Span::none());
    let config = watch::channel(Arc::new(fixture::config())).1;
    let parts = HttpParts {
        config: config.clone(),
        auth: fixture::authenticator(fixture::config(), &metrics),
        minter: fixture::minter(daisi_ws_service::runtime::clock::now),
        connector: fixture::full_connector(&metrics),
        throttle: Arc::new(Throttle::new(config, Arc::clone(&metrics))),
        readiness: Readiness::default(),
        metrics,
        tasks,
    };
    router(parts, None)
}

fn ask(runtime: &tokio::runtime::Runtime, app: &Router, mut request: Request<Body>) -> u16 {
    request.headers_mut().entry("host").or_insert(HeaderValue::from_static("test"));
    runtime.block_on(TowerToHyperService::new(app.clone()).call(request)).unwrap().status().as_u16()
}

/// A handshake that passes the checks of key and headers; without a connection behind it, it can't be upgraded, which is a 400 of
/// its own.
fn handshake(target: &str) -> Option<Request<Body>> {
    Request::builder()
        .uri(target)
        .header("x-api-key", API_KEY)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(Body::empty())
        .ok()
}

#[test]
fn no_path_or_query_panics_or_is_a_fault_of_ours() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = app(&runtime);
    proptest!(|(path in "(/ws)?(/[ -~]{0,12}){0,4}", query in "[ -~]{0,40}")| {
        if let Some(request) = handshake(&format!("{path}?{query}")) {
            let status = ask(&runtime, &app, request);
            prop_assert!([200, 400, 404, 405].contains(&status) || (status == 503 && path.starts_with("/ready")), "{status}");
        }
    });
}

#[test]
fn no_header_of_a_handshake_panics_or_passes_without_the_key() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = app(&runtime);
    let names = [
        "x-api-key",
        "authorization",
        "connection",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "origin",
        "x-request-id",
    ];
    proptest!(|(headers in vec((0..names.len(), vec(any::<u8>(), 0..40)), 0..8))| {
        let builder = headers.iter().fold(Request::builder().uri("/ws/acme/a1"), |b, (name, value)| b.header(names[*name], value.as_slice()));
        // What may come once comes twice: the request is refused before anybody looks for a key in it.
        let twice = ["x-api-key", "authorization", "origin"].iter().any(|once| headers.iter().filter(|(name, _)| names[*name] == *once).count() > 1);
        if let Ok(request) = builder.body(Body::empty()) {
            prop_assert_eq!(ask(&runtime, &app, request), if twice { 400 } else { 401 });
        }
    });
}

#[test]
fn no_body_panics_the_token_api() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = app(&runtime);
    proptest!(|(body in vec(any::<u8>(), 0..200))| {
        let request = Request::post("/generate-token").header("x-api-key", fixture::MINT_KEY).body(Body::from(body)).unwrap();
        prop_assert_eq!(ask(&runtime, &app, request), 400);
    });
}

// ---- ids, subjects, lock values
// --------------------------------------------------------------------------------------------------

const TIGHT: &str = "[a-zA-Z0-9_@#$%&+=é-]{1,20}";
const CHAT: &str = "[a-zA-Z0-9_@.:/é-]{1,40}";

fn company() -> impl Strategy<Value = CompanyId> {
    TIGHT.prop_map(|text| CompanyId::parse(&text).unwrap())
}

fn agent() -> impl Strategy<Value = AgentId> {
    TIGHT.prop_map(|text| AgentId::parse(&text).unwrap())
}

fn address() -> impl Strategy<Value = Address> {
    (company(), agent(), CHAT, 0..3).prop_map(|(company, agent, chat, kind)| match kind {
        0 => Address::Chats { company, agent },
        1 => Address::Messages { company, agent, chat: ChatId::parse(&chat).unwrap() },
        _ => Address::Agents { company, agent },
    })
}

fn company_of(route: &RouteKey) -> Option<&CompanyId> {
    match route {
        RouteKey::Chats { company, .. } | RouteKey::Messages { company, .. } => Some(company),
        RouteKey::Agents { company: Scope::Only(company), .. } => Some(company),
        RouteKey::Agents { company: Scope::Any, .. } => None,
    }
}

proptest! {
    #[test]
    fn any_text_is_an_id_that_keeps_the_rule_or_an_error(text in "\\PC{0,140}|[ -~\\t\\n]{0,20}") {
        let visible = |text: &str| !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        for parsed in [CompanyId::parse(&text).map(|id| id.to_string()), AgentId::parse(&text).map(|id| id.to_string())].into_iter().flatten() {
            prop_assert!(parsed == text && visible(&text) && text.len() <= 128 && !text.contains([':', '.', '*', '>', '/']));
        }
        for parsed in [UserId::parse(&text).map(|id| id.to_string()), AdminId::parse(&text).map(|id| id.to_string())].into_iter().flatten() {
            prop_assert!(parsed == text && visible(&text) && text.len() <= 128 && !text.contains(':'));
        }
        if ChatId::parse(&text).is_ok() {
            prop_assert!(visible(&text) && text.len() <= 256 && !text.contains(['*', '>']));
        }
        if PodId::parse(&text).is_ok() {
            prop_assert!(visible(&text) && text.len() <= 128 && !text.contains('/'));
        }
    }

    #[test]
    fn an_address_survives_its_subject(address in address()) {
        prop_assert_eq!(Address::parse("wa", &address.subject("wa")), Ok(address));
    }

    #[test]
    fn no_subject_panics_and_one_that_parses_is_its_addresss_own(subject in "wa(\\.[ -~]{0,10}){0,5}|\\PC{0,60}") {
        if let Ok(address) = Address::parse("wa", &subject) {
            prop_assert_eq!(address.subject("wa"), subject);
        }
    }

    #[test]
    fn a_subject_never_yields_another_companys_route(one in address(), other in company()) {
        let parsed = Address::parse("wa", &one.subject("wa")).unwrap();
        prop_assert_eq!(parsed.company(), one.company());
        for route in parsed.routes() {
            prop_assert!(company_of(&route).is_none_or(|company| company == one.company()));
            prop_assume!(&other != one.company());
            prop_assert!(company_of(&route) != Some(&other));
        }
    }

    #[test]
    fn a_lock_value_survives_its_text(pod in "[a-zA-Z0-9.:_-]{1,30}", bits in any::<u128>()) {
        let pod = PodId::parse(&pod).unwrap();
        let owner = LockOwner::new(pod.clone(), ConnectionId::from_random(bits));
        prop_assert_eq!(LockOwner::parse(&owner.to_string()), Ok(owner));
        let old = LockOwner { pod, connection: None };
        prop_assert_eq!(LockOwner::parse(&old.to_string()), Ok(old));
    }

    #[test]
    fn no_lock_value_panics_and_one_that_parses_is_its_owners_own(text in "\\PC{0,60}|[a-z/]{0,8}") {
        if let Ok(owner) = LockOwner::parse(&text) {
            prop_assert_eq!(owner.to_string(), text);
        }
    }

    #[test]
    fn no_plaintext_panics_the_claims(bytes in vec(any::<u8>(), 0..200), text in "\\{\"[ -~]{0,80}\\}") {
        let now = std::time::Duration::from_secs(1_700_000_000);
        for plaintext in [bytes.as_slice(), text.as_bytes()] {
            prop_assert!(UserClaims::read(plaintext, now).is_err());
            prop_assert!(AdminClaims::read(plaintext, now).is_err());
        }
    }
}

// ---- frames and payloads
// ---------------------------------------------------------------------------------------------------------

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec(("\\PC{0,8}", inner), 0..5).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A JSON object as text, with keys in any order, twice the same perhaps, and white space anywhere.
fn json_object() -> impl Strategy<Value = (Vec<String>, String)> {
    let key = prop_oneof!["\\PC{0,10}", Just("event_type".to_owned()), Just("payload".to_owned())];
    (vec((key, json_value()), 0..6), "[ \\t\\r\\n]{0,3}").prop_map(|(members, space)| {
        let text: Vec<_> = members
            .iter()
            .map(|(key, value)| format!("{space}{}{space}:{space}{value}{space}", Value::from(key.as_str())))
            .collect();
        (members.into_iter().map(|(key, _)| key).collect(), format!("{{{}}}", text.join(",")))
    })
}

fn event(payload: Payload) -> Event {
    Event {
        address: Address::parse("wa", "wa.acme.a1.chats").unwrap(),
        payload,
        stream: StreamId(1),
        seq: 42,
        stored_at: std::time::Duration::ZERO,
        request_id: None,
        traceparent: None,
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_as_a_payload(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Payload::parse(&Bytes::from(bytes));
    }

    #[test]
    fn a_payload_that_is_accepted_is_one_json_object(text in "[\\[\\]{}\":,a-c0-9 ]{0,24}") {
        let accepted = Payload::parse(&Bytes::from(text.clone())).is_ok();
        prop_assert_eq!(accepted, serde_json::from_str::<Value>(&text).is_ok_and(|value| value.is_object()));
    }

    #[test]
    fn an_object_is_kept_byte_for_byte((keys, text) in json_object(), around in "[ \\t\\r\\n]{0,3}") {
        let payload = Payload::parse(&Bytes::from(format!("{around}{text}{around}"))).unwrap();
        prop_assert_eq!(payload.bytes().as_ref(), text.as_bytes());
        prop_assert_eq!(payload.has_event_type(), keys.iter().any(|key| key == "event_type"));
    }

    #[test]
    fn an_event_frame_is_the_object_and_an_event_type((keys, text) in json_object()) {
        let frame = Frame::event(&event(Payload::parse(&Bytes::from(text.clone())).unwrap()), Stamp::default());
        let frame = std::str::from_utf8(frame.bytes()).unwrap();
        let parsed: Value = serde_json::from_str(frame).unwrap();
        prop_assert_eq!((&parsed["type"], &parsed["seq"]), (&Value::from("event"), &Value::from(42)));
        let inside = &text[..text.len() - 1];
        prop_assert!(frame.contains(inside));
        if !keys.iter().any(|key| key == "event_type") {
            prop_assert_eq!(&parsed["payload"]["event_type"], "chat");
        }
    }

    #[test]
    fn no_text_panics_as_a_client_frame(text in "\\PC{0,80}|\\{\"type\":[ -~]{0,60}\\}") {
        let _ = ClientFrame::parse(&text);
    }

    #[test]
    fn a_chat_that_may_be_selected_is_the_one_selected(chat in "\\PC{0,300}|[a-z0-9@.:-]{1,40}") {
        let message = serde_json::json!({ "type": "select_chat", "payload": { "chat_id": chat } }).to_string();
        match ClientFrame::parse(&message) {
            Ok(ClientFrame::SelectChat(selected)) => prop_assert_eq!(selected.as_str(), chat),
            Ok(other) => prop_assert!(false, "{other:?}"),
            Err(_) => prop_assert!(ChatId::parse(&chat).is_err()),
        }
    }
}
