//! The opening handshake of RFC 6455, by hand: it must be known to be good before a session is touched, and answered only after.

use std::{future::Future, sync::Arc};

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use daisi_ws_domain::frame::SUBPROTOCOL;
use daisi_ws_websocket::{Agreement, Upgraded};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    adapters::http::{credentials::lists, error::HttpError, listener::deferred_upgrade::DeferredUpgrade},
    config::CompressionMode,
    runtime::{lifecycle::Tasks, workers::Worker},
};

/// The one version of the protocol.
const VERSION: &str = "13";
/// What is wrong where a browser's handshake comes as HTTP/1.0.
const OLD_PROXY: &str = "no browser sends that: a proxy in between has to speak HTTP/1.1 to this service and to pass \
    Upgrade and Connection on (nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
    proxy_set_header Connection \"upgrade\";)";
/// Bytes of a handshake's key.
const KEY_BYTES: usize = 16;

/// A request that asks for a WebSocket as RFC 6455 wants it.
#[derive(Debug)]
pub(crate) struct Handshake {
    accept: HeaderValue,
    subprotocol: bool,
    /// What the client offers, one header a line.
    extensions: Vec<String>,
    upgrade: DeferredUpgrade,
}

impl Handshake {
    /// Checks the request and takes the right to upgrade out of it.
    ///
    /// # Errors
    /// 400 when it is no opening handshake, 426 when it is one of another version.
    pub(crate) fn read(request: &Request) -> Result<Self, HttpError> {
        let accept = check(request)?;
        let subprotocol = lists(request.headers(), &header::SEC_WEBSOCKET_PROTOCOL).any(|name| name == SUBPROTOCOL);
        let upgrade = DeferredUpgrade::of(request).ok_or_else(|| HttpError::bad_request("this connection can't be upgraded"))?;
        let offers = request.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter();
        let extensions = offers.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        Ok(Self { accept, subprotocol, extensions, upgrade })
    }

    /// Where the connection lives.
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        self.upgrade.worker()
    }

    /// Runs `serve` on the stream, with what was agreed on about compression, as one of `tasks`; it has to write the answer
    /// first, and to end by itself at the hard token. If the client is gone before, `serve` is dropped unrun, with all that it
    /// owns. Returns the answer.
    pub(crate) fn upgrade<F>(
        self,
        mode: CompressionMode,
        tasks: &Tasks,
        serve: impl FnOnce(Upgraded<TcpStream>, Option<Agreement>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let agreement = Agreement::reach(mode, self.extensions.iter().map(String::as_str));
        let (sessions, worker) = (tasks.clone(), Arc::clone(self.upgrade.worker()));
        self.upgrade.hand_to(move |upgraded| sessions.spawn_many_on(&worker, "session", serve(upgraded, agreement)));
        answer(self.accept, self.subprotocol, agreement.as_ref())
    }
}

/// Checks the request; gives the value that proves to the client that it was understood.
pub(crate) fn check(request: &Request) -> Result<HeaderValue, HttpError> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(HttpError::bad_request("a WebSocket is opened by a GET"));
    }
    if request.version() != Version::HTTP_11 {
        return Err(HttpError::bad_request("this request came as HTTP/1.0, which has no upgrades").with_details(OLD_PROXY));
    }
    if let Some(details) = missing(headers) {
        return Err(HttpError::bad_request("this path takes WebSocket upgrades only").with_details(details));
    }
    if only(headers, &header::SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Err(HttpError::bad_request("the only WebSocket version is 13")
            .with_status(StatusCode::UPGRADE_REQUIRED)
            .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION))
            // Upgrade is of this connection only, which Connection has to say (RFC 9110, section 7.8).
            .with_header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
            .with_header(header::UPGRADE, HeaderValue::from_static("websocket")));
    }
    if !request.body().is_end_stream() {
        return Err(HttpError::bad_request("an upgrade has no body"));
    }
    let key = only(headers, &header::SEC_WEBSOCKET_KEY);
    let fits = |key: &&str| BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
    key.filter(fits)
        .and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok())
        .ok_or_else(|| HttpError::bad_request("Sec-WebSocket-Key must be the base64 of 16 bytes"))
}

/// What to do about the headers that make an upgrade of a request and are not there. With a handshake's own headers, some proxy
/// took them away: they are of one connection only, and a proxy has to be told to pass them on.
fn missing(headers: &HeaderMap) -> Option<String> {
    let wanted = [(header::CONNECTION, "Connection: Upgrade", "upgrade"), (header::UPGRADE, "Upgrade: websocket", "websocket")];
    let missing: Vec<_> =
        wanted.iter().filter(|(name, _, token)| !has_token(headers, name, token)).map(|(_, line, _)| *line).collect();
    if missing.is_empty() {
        return None;
    }
    let missing = missing.join(" and ");
    let from_browser = headers.contains_key(header::SEC_WEBSOCKET_KEY) || headers.contains_key(header::SEC_WEBSOCKET_VERSION);
    Some(if from_browser {
        format!("{missing} did not arrive though the rest of a handshake did: a proxy in between must pass both headers on")
    } else {
        format!("{missing} did not arrive; a proxy in between must pass both headers on")
    })
}

fn answer(accept: HeaderValue, subprotocol: bool, agreement: Option<&Agreement>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    if let Some(value) = agreement.and_then(|agreement| HeaderValue::try_from(agreement.header()).ok()) {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, value);
    }
    response
}

/// The value of a header that may be there once only.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value.trim())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    lists(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use axum::{Router, response::IntoResponse as _, routing::get};
    use daisi_ws_websocket::{Message, WebSocket, deflate::Inflater, encode};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        adapters::http::listener::{intake::Intake, server::HttpServer},
        runtime::workers::Workers,
    };

    const GOOD: &[(&str, &str)] = &[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// The same on the wire.
    const REQUEST: &[u8] =
        b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn request(headers: &[(&str, &str)]) -> Request {
        let builder = headers.iter().fold(Request::builder(), |builder, (name, value)| builder.header(*name, *value));
        builder.body(Body::empty()).unwrap()
    }

    fn status(request: &Request) -> u16 {
        check(request).map_or_else(|error| error.into_response().status().as_u16(), |_| 101)
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let response = answer(check(&request(GOOD)).unwrap(), true, None);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "json.v1");
    }

    #[test]
    fn the_subprotocol_is_named_only_to_who_asked() {
        assert!(!answer(HeaderValue::from_static("x"), false, None).headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn each_missing_or_wrong_part_is_refused() {
        let changed = |name: &str, value: Option<&'static str>| {
            let mut headers: Vec<_> = GOOD.iter().copied().filter(|(n, _)| *n != name).collect();
            headers.extend(value.map(|value| (GOOD.iter().find(|(n, _)| *n == name).unwrap().0, value)));
            status(&request(&headers))
        };
        assert_eq!(changed("connection", None), 400);
        assert_eq!(changed("connection", Some("close")), 400);
        assert_eq!(changed("upgrade", None), 400);
        assert_eq!(changed("upgrade", Some("h2c")), 400);
        assert_eq!(changed("sec-websocket-version", None), 426);
        assert_eq!(changed("sec-websocket-version", Some("8")), 426);
        assert_eq!(changed("sec-websocket-key", None), 400);
        assert_eq!(changed("sec-websocket-key", Some("short")), 400);
        assert_eq!(changed("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZSE=")), 400);
    }

    #[test]
    fn two_keys_another_method_version_or_a_body_are_refused() {
        let twice = [GOOD, &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]].concat();
        assert_eq!(status(&request(&twice)), 400);
        let mut post = request(GOOD);
        *post.method_mut() = Method::POST;
        assert_eq!(status(&post), 400);
        let mut old = request(GOOD);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(status(&old), 400);
        let told = |request: &Request| check(request).unwrap_err().json();
        let told = |request: &Request| String::from_utf8(told(request)).unwrap();
        assert!(told(&old).contains("HTTP/1.0") && told(&old).contains("proxy_http_version 1.1"), "{}", told(&old));
        let mut full = request(GOOD);
        *full.body_mut() = Body::from("x");
        assert_eq!(status(&full), 400);
    }

    #[test]
    fn headers_that_a_proxy_dropped_are_named() {
        let told = |names: &[&str]| {
            let headers: Vec<_> = GOOD.iter().copied().filter(|(name, _)| names.contains(name)).collect();
            String::from_utf8(check(&request(&headers)).unwrap_err().json()).unwrap()
        };
        let handshake = ["sec-websocket-version", "sec-websocket-key"];
        let both = told(&handshake);
        assert!(both.contains("Connection: Upgrade and Upgrade: websocket did not arrive though"), "{both}");
        let one = told(&["connection", "sec-websocket-version", "sec-websocket-key"]);
        assert!(one.contains("\"Upgrade: websocket did not arrive though"), "{one}");
        assert!(!told(&[]).contains("though"), "a page that is opened in a browser is no handshake");
    }

    struct Dropped(Option<tokio::sync::oneshot::Sender<()>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().map(|sender| sender.send(()));
        }
    }

    /// A server whose one path opens a socket that says hello, echoes a message and ends. Tells when what the session owns is
    /// dropped.
    async fn server(workers: &Workers, limit: usize) -> (std::net::SocketAddr, tokio::sync::oneshot::Receiver<()>, Tasks) {
        let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
        let tasks = Tasks::new(crate::runtime::lifecycle::Shutdown::default(), metrics, tracing::Span::none());
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let (guard, owner) = (Arc::new(std::sync::Mutex::new(Some(Dropped(Some(sender))))), tasks.clone());
        let open = async move |request: Request| {
            let guard = guard.lock().unwrap().take();
            let handshake = Handshake::read(&request).unwrap();
            handshake.upgrade(CompressionMode::Disabled, &owner, async move |upgraded, agreement| {
                let _guard = guard;
                assert_eq!(agreement, None);
                assert!(upgraded.answer.starts_with(b"HTTP/1.1 101 "), "{:?}", upgraded.answer);
                let mut socket = WebSocket::new(upgraded, limit, Inflater::Off);
                socket.queue(encode::text(b"hello"));
                poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
                if let Ok(Message::Text(text)) = poll_fn(|cx| socket.poll_receive(cx)).await {
                    socket.queue(encode::text(text.as_bytes()));
                    poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
                }
            })
        };
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr();
        server.serve(Router::new().route("/", get(open)), Intake::Probes, &tasks, workers.team(), CancellationToken::new());
        (address, dropped, tasks)
    }

    #[tokio::test]
    async fn an_upgraded_connection_is_a_socket_that_belongs_to_the_tasks() {
        use futures_util::{SinkExt as _, StreamExt as _};
        let workers = Workers::start(1).unwrap();
        let (address, dropped, tasks) = server(&workers, 1024).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "hello");
        socket.send("ping".into()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "ping");
        dropped.await.unwrap();
        tasks.shutdown().hard.cancel();
        tasks.ended().await;
    }

    #[tokio::test]
    async fn a_message_over_the_limit_ends_the_socket() {
        use futures_util::{SinkExt as _, StreamExt as _};
        let workers = Workers::start(1).unwrap();
        let (address, dropped, _tasks) = server(&workers, 16).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await.unwrap();
        socket.send("x".repeat(17).into()).await.unwrap();
        dropped.await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "hello");
        assert!(!matches!(socket.next().await, Some(Ok(message)) if message.is_text()));
    }

    #[tokio::test]
    async fn the_answer_and_the_first_frame_are_one_write() {
        let workers = Workers::start(1).unwrap();
        let (address, ..) = server(&workers, 1024).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes[..read]);
        assert!(text.starts_with("HTTP/1.1 101 ") && text.ends_with("hello"), "{text}");
    }

    #[tokio::test]
    async fn what_the_session_owns_is_dropped_when_the_client_is_gone_before_the_answer() {
        let workers = Workers::start(1).unwrap();
        let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
        let tasks = Tasks::new(crate::runtime::lifecycle::Shutdown::default(), metrics, tracing::Span::none());
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let (guard, owner) = (Arc::new(std::sync::Mutex::new(Some(Dropped(Some(sender))))), tasks.clone());
        let (asked, is_asked) = tokio::sync::oneshot::channel();
        let asked = Arc::new(std::sync::Mutex::new(Some(asked)));
        let open = async move |request: Request| {
            let (guard, asked) = (guard.lock().unwrap().take(), asked.lock().unwrap().take());
            let response =
                Handshake::read(&request).unwrap().upgrade(CompressionMode::Disabled, &owner, async move |_, _| drop(guard));
            let _ = asked.map(|asked| asked.send(()));
            std::future::pending::<()>().await;
            response
        };
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr();
        server.serve(Router::new().route("/", get(open)), Intake::Probes, &tasks, workers.team(), CancellationToken::new());
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        is_asked.await.unwrap();
        drop(stream);
        dropped.await.unwrap();
    }
}
