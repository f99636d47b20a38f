//! Where a request carries its key and token. Neither is ever logged, nor is the query that may hold them.

use axum::http::{HeaderMap, HeaderName, Uri, header};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// Begins a sub-protocol that is a key, in base64url without padding: browsers can't set headers on a WebSocket, and this one no
/// proxy logs.
const KEY_ITEM: &str = "dws.key.";
/// Begins a sub-protocol that is a token, without padding.
const TOKEN_ITEM: &str = "dws.token.";
const API_KEY: &str = "x-api-key";
const TOKEN: &str = "token";
const BEARER: &str = "bearer";

/// The API key: header `X-API-Key`, else query `x-api-key`, else a sub-protocol. Empty counts as not given.
pub(super) fn api_key(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    header_key(headers).or_else(|| from_query(uri, API_KEY)).or_else(|| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(from_subprotocols(headers, KEY_ITEM)?).ok()?;
        String::from_utf8(bytes).ok()
    })
}

/// The API key in the header alone, for the token API: its key has no place in a URL that proxies write down.
pub(super) fn header_key(headers: &HeaderMap) -> Option<String> {
    headers.get(API_KEY).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).filter(|key| !key.is_empty())
}

/// The token: query `token`, else header `Authorization: Bearer`, else a sub-protocol. Empty counts as not given.
pub(super) fn token(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    from_query(uri, TOKEN).or_else(|| bearer(headers)).or_else(|| from_subprotocols(headers, TOKEN_ITEM).map(str::to_owned))
}

fn from_subprotocols<'a>(headers: &'a HeaderMap, prefix: &str) -> Option<&'a str> {
    lists(headers, &header::SEC_WEBSOCKET_PROTOCOL).find_map(|item| item.strip_prefix(prefix)).filter(|text| !text.is_empty())
}

/// The items of a comma-separated header, over all its lines.
pub(super) fn lists<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty()).then(|| token.to_owned())
}

/// The first value of a name in the query that is not empty.
pub(in crate::adapters::http) fn from_query(uri: &Uri, name: &str) -> Option<String> {
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
    #[test]
    fn subprotocols_carry_what_neither_header_nor_query_does() {
        let uri = Uri::from_static("/ws/a/b");
        // "a browser's key/+" and a token without its padding, in either line and order.
        for lines in [
            &["json.v1, dws.key.YSBicm93c2VyJ3Mga2V5Lys, dws.token.abc-_"][..],
            &["dws.token.abc-_", "dws.key.YSBicm93c2VyJ3Mga2V5Lys"],
        ] {
            let with: HeaderMap =
                lines.iter().map(|line| (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line))).collect();
            assert_eq!(api_key(&with, &uri).as_deref(), Some("a browser's key/+"), "{lines:?}");
            assert_eq!(token(&with, &uri).as_deref(), Some("abc-_"), "{lines:?}");
            let other = Uri::from_static("/ws/a/b?x-api-key=query&token=query");
            assert_eq!((api_key(&with, &other).as_deref(), token(&with, &other).as_deref()), (Some("query"), Some("query")));
            assert_eq!(header_key(&with), None, "the token API takes its key from a header alone");
        }
        for bad in ["dws.key., dws.token.", "dws.key.a+b/==", "dws.key.gICA", "json.v1", "DWS.KEY.YQ"] {
            let with = headers(&[("sec-websocket-protocol", bad)]);
            assert_eq!((api_key(&with, &uri), token(&with, &uri)), (None, None), "{bad}");
        }
    }
}
