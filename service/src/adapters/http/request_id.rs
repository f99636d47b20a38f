//! The id that ties a request's answer, log lines and calls together.

use std::{fmt, sync::Arc};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

/// Name of the header, on requests and responses.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// A longer id is not the client's business, and would bloat every line that carries it.
const MAX_BYTES: usize = 128;

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

    fn given(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(HEADER)?.to_str().ok()?;
        let fits = (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
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

/// Gives every request its id and every response that id, the headers that suit an API, and a line in the debug log.
///
/// Sockets have lines of their own. The query is never part of a line: it may hold a key or token.
pub(super) async fn tag(mut request: Request, next: Next) -> Response {
    let id = RequestId::given(request.headers()).unwrap_or_else(RequestId::fresh);
    request.extensions_mut().insert(id.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    if !path.starts_with("/ws/") {
        let status = response.status().as_u16();
        tracing::debug!(request.id = %id, http.method = %method, http.path = path, http.status = status, "answered a request");
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(HEADER, value);
    }
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
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
}
