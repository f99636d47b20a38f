//! A request's head: a line with method, target and perhaps `HTTP/1.0`, then headers, a line each.

use std::net::IpAddr;
use std::sync::LazyLock;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use daisi_ws_domain::{client_address::ClientAddress, network::Network};
use daisi_ws_service::adapters::http::fuzzing as http;

use crate::must;

static TRUSTED: LazyLock<[Network; 2]> =
    LazyLock::new(|| ["10.0.0.0/8", "fd00::/8"].map(|network| must(network.parse(), "a network")));

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

fn request(input: &[u8]) -> Option<Request<Body>> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut first = std::str::from_utf8(lines.next()?).ok()?.split(' ');
    let (method, target) = (first.next()?, first.next()?);
    let version = if first.next() == Some("HTTP/1.0") { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut request = Request::builder().method(method).uri(target).version(version).body(Body::empty()).ok()?;
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    Some(request)
}

pub(in super::super) fn check(input: &[u8]) {
    let Some(request) = request(input) else { return };
    let (headers, uri) = (request.headers(), request.uri());
    if let Some(id) = http::request_id(headers) {
        assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id:?}");
        assert_eq!(headers.get("x-request-id").map(HeaderValue::as_bytes), Some(id.as_bytes()));
    }
    let twice = ["host", "origin", "authorization", "x-api-key"].iter().any(|name| headers.get_all(*name).iter().count() > 1);
    let without_host = request.version() == Version::HTTP_11 && !headers.contains_key("host");
    assert_eq!(http::ambiguous(&request), (twice || without_host).then_some(400));

    let key = http::api_key(headers, uri);
    assert!(key.as_ref().is_none_or(|key| !key.is_empty()) || headers.contains_key("sec-websocket-protocol"));
    if let Some(given) = http::header_key(headers) {
        assert_eq!(key, Some(given), "the key in the header does not win");
    }
    let token = http::token(headers, uri);
    assert!(token.is_none_or(|token| !token.is_empty()));
    clients(headers);
    accept(&request);
}

fn clients(headers: &HeaderMap) {
    let stranger = http::client(STRANGER, headers, &*TRUSTED);
    assert_eq!(stranger, ClientAddress::of_client(STRANGER), "a stranger is believed");
    let is_trusted = |address: IpAddr| TRUSTED.iter().any(|network| network.contains(address));
    let client = http::client(PROXY, headers, &*TRUSTED);
    let address = client.ip().unwrap_or_else(|| crate::fail("nobody sent it"));
    assert_eq!(client.share().is_none(), is_trusted(address), "{client} is a client and a proxy");
    // What a client writes to the left of what its proxy adds changes nothing.
    if client.share().is_some() {
        for name in [HeaderName::from_static("x-forwarded-for"), header::FORWARDED] {
            let lines: Vec<_> = headers.get_all(&name).iter().cloned().collect();
            if let Some(first) = lines.first()
                && let Ok(forged) = HeaderValue::from_bytes(&[b"for=198.51.100.1, 198.51.100.1, ", first.as_bytes()].concat())
            {
                let mut more = headers.clone();
                more.remove(&name);
                for line in std::iter::once(forged).chain(lines.into_iter().skip(1)) {
                    more.append(&name, line);
                }
                assert_eq!(http::client(PROXY, &more, &*TRUSTED), client, "a client chooses its address by {name}");
            }
        }
    }
}

fn accept(request: &Request<Body>) {
    match http::accept(request) {
        Ok(accept) => {
            let headers = request.headers();
            assert!(request.method() == "GET" && request.version() == Version::HTTP_11);
            assert_eq!(headers.get_all("sec-websocket-key").iter().count(), 1);
            assert_eq!(headers.get("sec-websocket-version").map(HeaderValue::as_bytes), Some(&b"13"[..]));
            assert_eq!(BASE64_STANDARD.decode(accept).map(|bytes| bytes.len()), Ok(20), "it is no SHA-1");
        }
        Err(status) => assert!([400, 426].contains(&status), "{status}"),
    }
}
