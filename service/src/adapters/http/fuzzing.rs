//! What clients and proxies send, for `service/fuzz`: read as a request on a listener is.

use std::{
    io,
    net::IpAddr,
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::{
    extract::Request,
    http::{HeaderMap, Uri},
};
use daisi_ws_domain::{client_address::ClientAddress, network::Network};
use tokio::io::AsyncRead;

use super::{
    credentials,
    forwarded::{self, Peer},
    listener::proxy_protocol,
    request_id::{RequestId, ambiguity},
    sockets::upgrade,
};

/// The request's id, if it has one that is taken.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    RequestId::given(headers).map(|id| id.as_str().to_owned())
}

/// Could the request be read in two ways? Then the status that it is refused with.
#[must_use]
pub fn ambiguous(request: &Request) -> Option<u16> {
    ambiguity(request).map(|refusal| refusal.status().as_u16())
}

/// The API key of a request.
#[must_use]
pub fn api_key(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    credentials::api_key(headers, uri)
}

/// The API key in the header alone.
#[must_use]
pub fn header_key(headers: &HeaderMap) -> Option<String> {
    credentials::header_key(headers)
}

/// The token of a request.
#[must_use]
pub fn token(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    credentials::token(headers, uri)
}

/// The client of a request from `peer`.
#[must_use]
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> ClientAddress {
    forwarded::client(Some(Peer(peer)), headers, trusted)
}

/// The `Sec-WebSocket-Accept` of a handshake.
///
/// # Errors
/// The status that the request is refused with.
pub fn accept(request: &Request) -> Result<String, u16> {
    let accept = upgrade::check(request).map_err(|refusal| refusal.status().as_u16())?;
    accept.to_str().map(str::to_owned).map_err(|_| 500)
}

/// What the header of the PROXY protocol at the front of a stream says; none where the stream has nothing more to give.
///
/// # Errors
/// When it is none, or breaks off.
pub fn proxied(stream: &mut (impl AsyncRead + Unpin)) -> Option<io::Result<Option<IpAddr>>> {
    match pin!(proxy_protocol::read(stream)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}
