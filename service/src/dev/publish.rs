//! The way into the fleet's stream, for people and scripts: `POST /dev/publish/{subject}`.
//!
//! Without a guard: a dev fleet listens on loopback only.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use daisi_ws_domain::{close::ErrorCode, frame::ErrorBody, publication::Publication};
use serde_json::json;

use crate::{
    adapters::{
        memory::stream::{Headers, Stream},
        nats,
    },
    config::Nats,
    telemetry::audit::{Action, Actor, Audit, Refused},
};

/// The largest event; what a NATS server takes by default.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The most of a subject that is logged.
const MAX_LOGGED: usize = 256;

/// Where published events go, and with what their subjects begin.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    pub(super) subject_prefix: Arc<str>,
    pub(super) backend: Backend,
}

/// What stores them.
#[derive(Debug, Clone)]
pub(super) enum Backend {
    Memory(Stream),
    Nats(Arc<Nats>),
}

/// The path at which a dev fleet takes an event for the subject.
#[must_use]
pub(crate) fn publish_path(subject: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@:".contains(&byte);
    let escaped: String =
        subject.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect();
    format!("/dev/publish/{escaped}")
}

pub(super) fn routes(sink: Sink) -> Router {
    Router::new().route("/dev/publish/{subject}", post(publish)).layer(DefaultBodyLimit::max(MAX_EVENT_BYTES)).with_state(sink)
}

async fn publish(State(sink): State<Sink>, Path(subject): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (request_id, traceparent) = (header("x-request-id"), header("traceparent"));
    let asked = request_id.clone();
    let actor = Actor { request: asked.as_deref(), ..Actor::default() };
    // What is no subject may be of any length.
    let audit = Audit { what: Some(&subject[..subject.floor_char_boundary(MAX_LOGGED)]), ..Audit::of(Action::Publish, actor) };
    let refused = |status, code: ErrorCode, what: &str, why: String| {
        Audit { refused: Some(Refused { code: code.as_str(), message: what }), ..audit }.log("published no event");
        (status, Json(ErrorBody::new(code, what).with_details(why))).into_response()
    };
    let event = match Publication::parse(&sink.subject_prefix, &subject, &body) {
        Ok(event) => event,
        Err(error) => {
            return refused(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, "this is no event", error.to_string());
        }
    };
    let stored = match sink.backend {
        Backend::Memory(stream) => stream
            .append(event.subject(), event.payload().clone(), Headers { request_id, traceparent })
            .map_err(|error| error.to_string()),
        Backend::Nats(settings) => nats::publish(&settings, &event, request_id.as_deref()).await.map_err(|e| e.to_string()),
    };
    match stored {
        Ok(seq) => {
            audit.log("published an event");
            Json(json!({ "seq": seq })).into_response()
        }
        Err(why) => refused(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::ServiceUnavailable, "the event was not stored", why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_with_odd_characters_stays_one_path_segment() {
        assert_eq!(
            publish_path("wa.acme.a1.messages.62811@s.whatsapp.net"),
            "/dev/publish/wa.acme.a1.messages.62811@s.whatsapp.net"
        );
        assert_eq!(publish_path("wa.a/b?c é"), "/dev/publish/wa.a%2Fb%3Fc%20%C3%A9");
        assert_eq!(publish_path("wa.*.>"), "/dev/publish/wa.%2A.%3E");
    }
}
