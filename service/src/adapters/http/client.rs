//! The browser client, served where `server.serve_client` is on: a page then needs no build step to speak to this very version.

use axum::{
    Router,
    http::{HeaderName, header},
    routing::get,
};

/// `service/web/client.min.js`; a test of its own proves that it is made of `clients/typescript`.
const CLIENT: &str = include_str!("../../../web/client.min.js");

/// Pages of other origins load it too, so it says that they may. It may be kept for as long as a rollout takes.
const HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
    (header::CACHE_CONTROL, "public, max-age=300"),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
];

pub(super) fn routes() -> Router {
    Router::new().route("/client.js", get(async || (HEADERS, CLIENT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_small() {
        assert!(CLIENT.len() <= 6_500, "{} bytes", CLIENT.len());
    }
}
