//! The console page: plain HTML, CSS and ES modules, embedded in the binary.

use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};

/// Nothing but the fleet's own files, and calls and sockets to its pods.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; connect-src 'self' http://127.0.0.1:* ws://127.0.0.1:*";

const POLICY_HEADER: HeaderName = HeaderName::from_static("content-security-policy");

macro_rules! files {
    ($($path:literal: $kind:literal, $name:literal;)*) => {
        pub(super) fn routes() -> Router {
            Router::new()$(.route(
                $path,
                get(async || file(concat!($kind, "; charset=utf-8"), include_str!(concat!("console/", $name)))),
            ))*
        }
    };
}

files! {
    "/": "text/html", "index.html";
    "/console/style.css": "text/css", "style.css";
    "/console/main.js": "text/javascript", "main.js";
    "/console/api.js": "text/javascript", "api.js";
    "/console/sockets.js": "text/javascript", "sockets.js";
    "/console/charts.js": "text/javascript", "charts.js";
    "/console/events.js": "text/javascript", "events.js";
    "/console/dom.js": "text/javascript", "dom.js";
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (POLICY_HEADER, POLICY), (header::REFERRER_POLICY, "no-referrer")], text)
}
