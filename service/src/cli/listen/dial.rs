//! How a listener gets its socket, and what a refusal means.

use std::{fmt, sync::Arc, time::Duration};

use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use daisi_ws_domain::{frame::SUBPROTOCOL, ids::ChatId, resume::Cursor};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, client::IntoClientRequest as _},
};

use crate::{cli::error::CliError, telemetry::Chain};

/// The longest wait from the first packet to the upgrade.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest `Retry-After` that is obeyed: a broken proxy must not silence a listener for a day.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Plain or within TLS.
pub(super) trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// A socket of a session.
pub(super) type Socket = WebSocketStream<Box<dyn Pipe>>;

/// Why there is no socket, or none any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The next attempt would end in the same way, or take the session from somebody.
    ForGood(String),
    /// Another attempt may do, after so long at least.
    ForNow(String, Duration),
}

/// An address of a session. Shows itself without the query, which may hold secrets.
#[derive(Clone)]
pub(super) struct Address(Uri);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::ForGood(what) | Self::ForNow(what, _)) = self;
        f.write_str(what)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.0.scheme_str().unwrap_or("ws"), self.host());
        write!(f, "{scheme}://{authority}:{}{}", self.port(), self.0.path())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Address {
    /// Reads an address as the command line has it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("ws" | "wss"), Some(_)) if uri.path().starts_with("/ws/") => Ok(Self(uri)),
            _ => Err("it is ws:// or wss://, a host, and /ws/{company}/{agent} or /ws/admin".to_owned()),
        }
    }

    /// What stands in the path after `/ws/`.
    pub(super) fn session(&self) -> &str {
        self.0.path().trim_start_matches("/ws/")
    }

    /// Does the query have this name?
    pub(super) fn has(&self, name: &str) -> bool {
        form_urlencoded::parse(self.0.query().unwrap_or_default().as_bytes()).any(|(key, value)| key == name && !value.is_empty())
    }

    fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("wss")
    }

    fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_secure() { 443 } else { 80 })
    }

    /// The address with what a session is asked for, and that it can move.
    fn with(&self, chat: Option<&ChatId>, resume: Option<&Cursor>) -> String {
        let address = self.0.to_string();
        let mut all = form_urlencoded::Serializer::for_suffix(self.0.query().unwrap_or_default().to_owned(), 0);
        if let Some(chat) = chat {
            all.append_pair("chat", chat.as_str());
        }
        if let Some(resume) = resume {
            all.append_pair("resume", &resume.to_string());
        }
        if !self.has("move") {
            all.append_pair("move", "1");
        }
        format!("{}?{}", address.split('?').next().unwrap_or_default(), all.finish())
    }
}

/// What opens a session.
pub(super) struct Dialer {
    pub(super) address: Address,
    tls: Option<TlsConnector>,
}

impl Dialer {
    /// Dials this address. Who may answer to `wss` is what this machine trusts (`SSL_CERT_FILE` names other authorities).
    pub(super) fn new(address: Address) -> Result<Self, CliError> {
        let tls = if address.is_secure() { Some(connector()?) } else { None };
        Ok(Self { address, tls })
    }

    /// Opens a socket with key and token, where they are not in the address itself.
    pub(super) async fn dial(
        &self,
        (key, token): (Option<&str>, Option<&str>),
        chat: Option<&ChatId>,
        resume: Option<&Cursor>,
    ) -> Result<Socket, Ended> {
        let unusable = |what: &str| Ended::ForGood(format!("{what} can't be sent in a header"));
        let mut request =
            self.address.with(chat, resume).into_client_request().map_err(|error| Ended::ForGood(error.to_string()))?;
        let headers = request.headers_mut();
        if let Some(key) = key {
            headers.insert("x-api-key", HeaderValue::from_str(key).map_err(|_| unusable("the API key"))?);
        }
        if let Some(token) = token {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| unusable("the token"))?;
            headers.insert(header::AUTHORIZATION, bearer);
        }
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let dialed = async {
            let pipe = self.connect().await?;
            tokio_tungstenite::client_async(request, pipe).await.map(|(socket, _)| socket)
        };
        match timeout(TIMEOUT, dialed).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(WsError::Http(answer))) => Err(refused(&answer)),
            Ok(Err(error)) => Err(Ended::ForNow(Chain(&error).to_string(), Duration::ZERO)),
            Err(_) => Err(Ended::ForNow("no answer in time".to_owned(), Duration::ZERO)),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Pipe>, WsError> {
        let host = self.address.host().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.address.port())).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

fn connector() -> Result<TlsConnector, CliError> {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if authorities.is_empty() {
        return Err(CliError::failed("this machine has no certificates of authorities; SSL_CERT_FILE may name some"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(CliError::failed)?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A refusal before the upgrade. What the client did wrong it would do again; the rest passes.
fn refused<B>(answer: &Response<B>) -> Ended {
    let status = answer.status();
    let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = Duration::from_secs(after.unwrap_or(0)).min(MAX_RETRY_AFTER);
    let what = match status {
        StatusCode::UNAUTHORIZED => "401: the API key is wrong".to_owned(),
        StatusCode::FORBIDDEN => "403: the token is wrong, has run out, or is not for this address".to_owned(),
        StatusCode::CONFLICT => "409: a newer socket has the session".to_owned(),
        StatusCode::BAD_REQUEST => "400: the gateway does not take this address, chat included".to_owned(),
        other => other.to_string(),
    };
    let passes = !status.is_client_error() || status == StatusCode::TOO_MANY_REQUESTS;
    if passes { Ended::ForNow(what, after) } else { Ended::ForGood(what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_a_session_and_shows_no_query() {
        let address = Address::parse("wss://gw.example/ws/acme/agent-7?token=secret").unwrap();
        assert_eq!(format!("{address} {address:?}"), ["wss://gw.example:443/ws/acme/agent-7"; 2].join(" "));
        assert_eq!((address.session(), address.has("token"), address.has("x-api-key")), ("acme/agent-7", true, false));
        for bad in
            ["", "gw.example", "http://gw.example/ws/admin", "ws:///ws/admin", "ws://gw.example", "ws://gw.example/sse/a/b"]
        {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn chat_and_cursor_go_into_the_query_beside_what_is_there() {
        let (chat, cursor) = (ChatId::parse("62811@s.whatsapp.net&x").unwrap(), Cursor::parse("s1:41").unwrap());
        let with = |text: &str, chat, resume| Address::parse(text).unwrap().with(chat, resume);
        assert_eq!(with("ws://h:1/ws/admin", None, None), "ws://h:1/ws/admin?move=1");
        assert_eq!(with("ws://h:1/ws/admin?move=0", None, None), "ws://h:1/ws/admin?move=0");
        assert_eq!(with("ws://h:1/ws/admin", None, Some(&cursor)), "ws://h:1/ws/admin?resume=s1%3A41&move=1");
        assert_eq!(
            with("ws://h:1/ws/a/b?token=t%2B", Some(&chat), Some(&cursor)),
            "ws://h:1/ws/a/b?token=t%2B&chat=62811%40s.whatsapp.net%26x&resume=s1%3A41&move=1"
        );
    }

    #[test]
    fn a_refusal_that_would_come_again_is_final_and_the_rest_passes() {
        let answer = |status: u16, after: Option<&str>| {
            let answer = Response::builder().status(status);
            let answer = after.into_iter().fold(answer, |answer, after| answer.header("retry-after", after));
            refused(&answer.body(()).unwrap())
        };
        for status in [400, 401, 403, 404, 409, 426] {
            assert!(matches!(answer(status, None), Ended::ForGood(_)), "{status}");
        }
        for (status, after, expected) in [(503, Some("7"), 7), (503, None, 0), (429, Some("60"), 60), (502, Some("soon"), 0)] {
            assert!(matches!(answer(status, after), Ended::ForNow(_, wait) if wait.as_secs() == expected), "{status}");
        }
        assert!(matches!(answer(503, Some("86400")), Ended::ForNow(_, MAX_RETRY_AFTER)));
    }
}
