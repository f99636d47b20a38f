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
use serde_json::json;

use crate::{
    adapters::{
        memory::stream::{Headers, Stream},
        nats,
    },
    config::Nats,
    domain::{close::ErrorCode, frame::ErrorBody},
};

/// The largest event; what a NATS server takes by default.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Where published events go.
#[derive(Debug, Clone)]
pub(super) enum Sink {
    Memory(Stream),
    Nats(Arc<Nats>),
}

/// The path at which a dev fleet takes an event for the subject.
#[must_use]
pub fn publish_path(subject: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@:*>".contains(&byte);
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
    let stored = match sink {
        Sink::Memory(stream) => {
            stream.append(&subject, body, Headers { request_id, traceparent }).map_err(|error| error.to_string())
        }
        Sink::Nats(settings) => nats::publish(&settings, &subject, body, request_id.as_deref()).await.map_err(|e| e.to_string()),
    };
    match stored {
        Ok(seq) => Json(json!({ "seq": seq })).into_response(),
        Err(why) => {
            let body = ErrorBody::new(ErrorCode::ServiceUnavailable, "the event was not stored").with_details(why);
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
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
    }
}
