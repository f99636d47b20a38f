//! The id that ties a request's answer, log lines and calls together.

use std::{fmt, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Version, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use daisi_ws_domain::client_address::ClientAddress;
use tokio::sync::watch;

use super::{
    error::HttpError,
    forwarded::{self, Peer},
};
use crate::config::Config;

/// Name of the header, on requests and responses.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// A longer id is not the client's business, and would bloat every line that carries it.
const MAX_BYTES: usize = 128;

/// Headers that a request may have once only: of two, a proxy and this pod could each go by another.
const ONCE: [HeaderName; 4] = [header::HOST, header::ORIGIN, header::AUTHORIZATION, HeaderName::from_static("x-api-key")];

/// The id of one request: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The id that [`tag`] gave to the request.
    pub(super) fn of(request: &Request) -> Self {
        request.extensions().get().cloned().unwrap_or_else(Self::fresh)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn given(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(HEADER)?.to_str().ok()?;
        let fits = (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }

    /// The response with this id, and the headers that suit an API.
    pub(super) fn on(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(self.as_str()) {
            headers.insert(HEADER, value);
        }
        headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        response
    }

    pub(super) fn fresh() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a request that two could read in two ways (RFC 9112, section 3.2, and its likes).
pub(super) fn ambiguity(request: &Request) -> Option<HttpError> {
    let headers = request.headers();
    if request.version() == Version::HTTP_11 && !headers.contains_key(header::HOST) {
        return Some(HttpError::bad_request("a request of HTTP/1.1 has to have the header Host"));
    }
    let doubled = ONCE.into_iter().find(|name| headers.get_all(name).iter().nth(1).is_some())?;
    Some(HttpError::bad_request("a header is there twice").with_details(format!("{doubled} may be there once only")))
}

/// The client's address that [`tag`] found out.
pub(super) fn client_address(request: &Request) -> ClientAddress {
    request.extensions().get().copied().unwrap_or(ClientAddress::UNKNOWN)
}

/// Gives every request its id and its [`ClientAddress`], and every response that id, the headers that suit an API, and a line in
/// the debug log.
///
/// Sockets have lines of their own. The query is never part of a line: it may hold a key or token.
pub(super) async fn tag(State(config): State<watch::Receiver<Arc<Config>>>, mut request: Request, next: Next) -> Response {
    let id = RequestId::given(request.headers()).unwrap_or_else(RequestId::fresh);
    let peer = request.extensions().get::<Peer>().copied();
    let client = forwarded::client(peer, request.headers(), &config.borrow().server.trusted_proxies);
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(client);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match ambiguity(&request) {
        None => next.run(request).await,
        Some(refusal) => refusal.into_response(),
    };
    if !path.starts_with("/ws/") {
        let status = response.status().as_u16();
        tracing::debug!(
            request.id = %id, client.address = %client, http.method = %method, http.path = path, http.status = status,
            "answered a request"
        );
    }
    id.on(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(value: &[u8]) -> Option<RequestId> {
        RequestId::given(&[(HEADER, HeaderValue::from_bytes(value).unwrap())].into_iter().collect())
    }

    #[test]
    fn a_visible_id_is_kept_and_any_other_replaced() {
        assert_eq!(given(b"abc-1/2").unwrap().as_str(), "abc-1/2");
        assert!(given(&[b'a'; 128]).is_some());
        for bad in [b"".as_slice(), b"a b", b"\xff", "é".as_bytes(), &[b'a'; 129]] {
            assert_eq!(given(bad), None);
        }
    }

    #[test]
    fn fresh_ids_are_128_bits_in_hex_and_differ() {
        let (one, other) = (RequestId::fresh(), RequestId::fresh());
        assert_ne!(one, other);
        assert!(one.as_str().len() == 32 && one.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
    }

    /// What a pod that trusts `proxies` takes for the client of a request with this header.
    async fn seen(proxies: &[&str], header: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut config = crate::config::testing::config();
        config.server.trusted_proxies = proxies.iter().map(|text| text.parse().unwrap()).collect();
        let (_keep, config) = watch::channel(Arc::new(config));
        let tell = axum::routing::get(async |request: Request| client_address(&request).to_string());
        let app = axum::Router::new().route("/", tell).layer(axum::middleware::from_fn_with_state(config, tag));
        let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
        let tasks =
            crate::runtime::lifecycle::Tasks::new(crate::runtime::lifecycle::Shutdown::default(), metrics, tracing::Span::none());
        let workers = crate::runtime::workers::Workers::start(1).unwrap();
        let server = crate::adapters::http::listener::server::HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut stream = tokio::net::TcpStream::connect(server.local_addr()).await.unwrap();
        server.serve(
            app,
            crate::adapters::http::listener::intake::Intake::Probes,
            &tasks,
            workers.team(),
            tokio_util::sync::CancellationToken::new(),
        );
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{header}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.rsplit("\r\n").next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_clients_address_is_its_own_or_what_a_trusted_proxy_says() {
        const FORWARDED: &str = "X-Forwarded-For: 198.51.100.1, 203.0.113.7";
        assert_eq!(seen(&[], FORWARDED).await, "127.0.0.1");
        assert_eq!(seen(&["10.0.0.0/8"], FORWARDED).await, "127.0.0.1");
        assert_eq!(seen(&["127.0.0.0/8"], FORWARDED).await, "203.0.113.7");
        assert_eq!(seen(&["127.0.0.0/8"], "X-Other: 1").await, "127.0.0.1");
    }

    #[test]
    fn a_request_that_could_be_read_in_two_ways_is_refused() {
        let refused = |version, names: &[&str]| {
            let request = Request::builder().version(version);
            let request = names.iter().fold(request, |request, name| request.header(*name, "a.example"));
            ambiguity(&request.body(axum::body::Body::empty()).unwrap()).is_some()
        };
        assert!(!refused(Version::HTTP_11, &["host", "origin", "x-api-key", "cookie", "cookie"]));
        for twice in ["host", "origin", "authorization", "x-api-key"] {
            assert!(refused(Version::HTTP_11, &["host", twice, twice]), "{twice}");
        }
        assert!(refused(Version::HTTP_11, &[]) && !refused(Version::HTTP_10, &[]));
    }
}
