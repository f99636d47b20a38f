//! Where a request carries its key and token. Neither is ever logged, nor is the query that may hold them.

use axum::http::{HeaderMap, Uri, header};

const API_KEY: &str = "x-api-key";
const TOKEN: &str = "token";
const BEARER: &str = "bearer";

/// The API key: header `X-API-Key`, else query `x-api-key`. Empty counts as not given.
pub(super) fn api_key(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    header_key(headers).or_else(|| from_query(uri, API_KEY))
}

/// The API key in the header alone, for the token API: its key has no place in a URL that proxies write down.
pub(super) fn header_key(headers: &HeaderMap) -> Option<String> {
    headers.get(API_KEY).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).filter(|key| !key.is_empty())
}

/// The token: query `token`, else header `Authorization: Bearer`. Empty counts as not given.
pub(super) fn token(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    from_query(uri, TOKEN).or_else(|| bearer(headers))
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty()).then(|| token.to_owned())
}

fn from_query(uri: &Uri, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_key_in_the_header_wins_over_the_query() {
        let uri = Uri::from_static("/ws/a/b?x-api-key=query");
        assert_eq!(api_key(&headers(&[("x-api-key", "header")]), &uri).as_deref(), Some("header"));
        assert_eq!(api_key(&headers(&[("x-api-key", "")]), &uri).as_deref(), Some("query"));
        assert_eq!(api_key(&HeaderMap::new(), &uri).as_deref(), Some("query"));
        assert_eq!(api_key(&HeaderMap::new(), &Uri::from_static("/ws/a/b")), None);
        assert_eq!(header_key(&HeaderMap::new()), None);
    }

    #[test]
    fn a_token_in_the_query_wins_over_the_header() {
        let with = headers(&[("authorization", "Bearer header")]);
        assert_eq!(token(&with, &Uri::from_static("/?token=query")).as_deref(), Some("query"));
        assert_eq!(token(&with, &Uri::from_static("/?token=")).as_deref(), Some("header"));
        assert_eq!(token(&with, &Uri::from_static("/?other=%ff")).as_deref(), Some("header"));
        assert_eq!(token(&HeaderMap::new(), &Uri::from_static("/?token=a%3D%3D")).as_deref(), Some("a=="));
    }

    #[test]
    fn only_the_bearer_scheme_carries_a_token() {
        let uri = Uri::from_static("/");
        assert_eq!(token(&headers(&[("authorization", "bearer  abc ")]), &uri).as_deref(), Some("abc"));
        for value in ["Basic abc", "abc", "Bearer", "Bearer ", ""] {
            assert_eq!(token(&headers(&[("authorization", value)]), &uri), None, "{value}");
        }
    }
}
