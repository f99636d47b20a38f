//! Connections: accepted within bounds, served by hyper, ended on time.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    forwarded::Peer,
    refusal::Refusal,
    switch::{Answering, Switch},
};
use crate::{
    cores::{Core, Cores},
    lifecycle::Tasks,
    listen::listen,
};

/// Connections that are not sockets yet. Beyond it new ones wait in the kernel's queue: in a storm of reconnects, waiting beats a refusal
/// that only makes the storm last.
const MAX_CONNECTIONS: usize = 1024;
/// Longest time for a request's head to arrive, and longest idle time between two requests: a connection that asks for nothing must not
/// keep one out that does.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that the kernel keeps until they are accepted; it keeps no more than `net.core.somaxconn`, usually as many. Whoever comes when it is full
/// tries again after a second.
const BACKLOG: u32 = 4096;
/// Headers of a request; browsers and proxies send some thirty.
pub(super) const MAX_HEADERS: usize = 100;
/// Bytes of a request's head: the longest token in a query or header, twice over, and room for cookies.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// After so long a connection that is no socket is asked to end: a client that never reads its answer must not stay for ever.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long a request under way may take to end after that, or after the server was told to stop.
const LAST_REQUEST: Duration = Duration::from_secs(10);
/// What the system keeps for a client beside what is on its way already. It would keep megabytes: for a client that does not read, beside all that a mailbox
/// keeps, and one that reads slowly would look for seconds as if it did not.
const UNSENT_BYTES: u32 = 128 * 1024;
/// How long, and for how many bytes, a connection is listened to behind a refusal.
const LAST_WORDS: Duration = Duration::from_secs(2);
const MAX_REST: usize = 1 << 20;
/// Wait after an accept failed for want of something (file descriptors, memory): trying again at once would only burn the CPU.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpServer {
    /// Binds the address; port 0 picks a free one. Connections queue up until [`HttpServer::serve`].
    ///
    /// # Errors
    /// When the address can't be had.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address, BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address that it is bound to, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts to answer, in `tasks`, and returns at once. When `stop` is cancelled, the listener closes and each connection ends after the
    /// request that is under way. Sockets are not its business any more.
    ///
    /// Where there are `cores`, each connection lives on one of them from its first byte on, with the socket that it becomes.
    pub fn serve(self, app: Router, tasks: &Tasks, cores: Option<Arc<Cores>>, stop: CancellationToken) {
        self.serve_at_most(MAX_CONNECTIONS, app, tasks, cores, stop);
    }

    fn serve_at_most(self, connections: usize, app: Router, tasks: &Tasks, cores: Option<Arc<Cores>>, stop: CancellationToken) {
        let acceptor =
            Acceptor { app, tasks: tasks.clone(), cores: cores.clone(), stop, room: Arc::new(Semaphore::new(connections)) };
        let Some(cores) = cores else {
            let listener = Arc::new(self.listener);
            tasks.supervise("http listener", move || acceptor.clone().run(Arc::clone(&listener)));
            return;
        };
        let Ok(listener) = self.listener.into_std().map(Arc::new) else {
            tracing::error!("the listener can't be shared by the cores; no connection will be accepted");
            return;
        };
        for core in cores.all() {
            let (acceptor, listener) = (acceptor.clone(), Arc::clone(&listener));
            tasks.supervise_on(core, "http listener", move || acceptor.clone().run_shared(Arc::clone(&listener)));
        }
    }
}

#[derive(Clone)]
struct Acceptor {
    app: Router,
    tasks: Tasks,
    cores: Option<Arc<Cores>>,
    stop: CancellationToken,
    room: Arc<Semaphore>,
}

impl Acceptor {
    /// Accepts on a core, from the one queue that the kernel has for all of them.
    async fn run_shared(self, listener: Arc<std::net::TcpListener>) {
        match listener.try_clone().and_then(TcpListener::from_std) {
            Ok(listener) => self.run(Arc::new(listener)).await,
            Err(error) => tracing::error!(error = %error, "the listener can't be had on this core; the others go on"),
        }
    }

    async fn run(self, listener: Arc<TcpListener>) {
        let mut failures = 0_u64;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    if failures > 0 {
                        tracing::info!(failures, "connections are accepted again");
                        failures = 0;
                    }
                    self.start(stream, peer, permit);
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(error = %error, "connections can't be accepted now; trying on");
                    }
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, Peer, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        // Frames are small and must not wait for one another; a stream that refuses is on its way out anyway.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        Ok((stream, Peer(peer.ip()), permit))
    }

    fn start(&self, stream: TcpStream, peer: Peer, permit: OwnedSemaphorePermit) {
        let (app, stop) = (self.app.clone(), self.stop.clone());
        let Some(core) = self.cores.as_ref().and_then(|cores| elsewhere(cores)) else {
            self.tasks.spawn("http connection", async move {
                serve(stream, peer, app, stop).await;
                drop(permit);
            });
            return;
        };
        // Out of this runtime, to be waited for in that one.
        let Ok(stream) = stream.into_std() else { return };
        self.tasks.spawn_on(core, "http connection", async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                serve(stream, peer, app, stop).await;
            }
            drop(permit);
        });
    }
}

/// The core that has so many fewer connections than this one that a new one should go there. The kernel does not share them out evenly.
fn elsewhere(cores: &Cores) -> Option<&Arc<Core>> {
    let (here, least) = (Core::current()?, cores.least_loaded());
    let fair = least.load() + least.load() / 8 + 16;
    (here.load() > fair).then_some(least)
}

/// Serves one connection until it ends or becomes a socket.
async fn serve(stream: TcpStream, peer: Peer, app: Router, stop: CancellationToken) {
    let (switch, app) = (Switch::default(), TowerToHyperService::new(app));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(switch.clone());
        request.extensions_mut().insert(peer);
        app.call(request)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Answering::new(stream)), service);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = stop.cancelled() => None,
        () = sleep(LIFETIME) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            let Ok(ended) = timeout(LAST_REQUEST, &mut connection).await else { return };
            ended
        }
    };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if let Err(error) = ended {
        // The client broke off, stalled or spoke no HTTP: its business, and common.
        tracing::debug!(error = %error, "a connection ended badly");
        if let Some(refusal) = Refusal::of_silence(&error, &parts.read_buf) {
            stream.refuse(refusal);
        }
    } else if !stream.has_refused() {
        return switch.complete(stream, parts.read_buf);
    }
    if stream.has_refused() {
        let _ = timeout(LAST_WORDS, part(stream)).await;
    }
}

/// Ends a connection behind a refusal. What still comes is read and thrown away, within bounds: closing before it was read would reset the connection, and the
/// client would see that instead of the refusal.
async fn part(mut stream: Answering) {
    let mut rest = [0; 4096];
    let mut left = MAX_REST;
    if stream.shutdown().await.is_err() {
        return;
    }
    while left > 0
        && let Ok(read) = stream.read(&mut rest).await
        && read > 0
    {
        left = left.saturating_sub(read);
    }
}

/// Did the accept fail because that one client left again, rather than for want of something here?
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn want_of_file_descriptors_is_ours_and_a_client_that_left_is_not() {
        const EMFILE: i32 = 24;
        assert!(!is_the_peers(&io::Error::from_raw_os_error(EMFILE)));
        assert!(is_the_peers(&io::Error::from(io::ErrorKind::ConnectionAborted)));
    }

    /// A pod that has room for one connection, and what tells it to stop.
    async fn narrow_pod(app: Router) -> (SocketAddr, Tasks, CancellationToken) {
        let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
        let tasks = Tasks::new(crate::lifecycle::Shutdown::default(), metrics, tracing::Span::none());
        let (server, stop) = (HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap(), CancellationToken::new());
        let address = server.local_addr();
        server.serve_at_most(1, app, &tasks, None, stop.clone());
        (address, tasks, stop)
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_connection_beyond_the_bound_waits_until_another_ends() {
        let (address, ..) = narrow_pod(Router::new()).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut first).await.starts_with("HTTP/1.1 404"));
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut answer = pin!(ask(&mut second));
        // The first is answered again, and the second still is not.
        assert!(futures_util::poll!(answer.as_mut()).is_pending());
        assert!(ask(&mut first).await.starts_with("HTTP/1.1 404"));
        assert!(futures_util::poll!(answer.as_mut()).is_pending());
        drop(first);
        assert!(answer.await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_connection_that_becomes_something_else_makes_room() {
        let switch = async |request: axum::extract::Request| {
            Switch::of(&request).unwrap().hand_to(|upgraded| assert!(upgraded.stream.try_write(&upgraded.answer).unwrap() > 0));
            let headers = [("connection", "upgrade"), ("upgrade", "test")];
            (axum::http::StatusCode::SWITCHING_PROTOCOLS, headers)
        };
        let (address, ..) = narrow_pod(Router::new().route("/", axum::routing::get(switch))).await;
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n").await.unwrap();
            let mut bytes = [0; 12];
            stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"HTTP/1.1 101");
        }
    }

    #[tokio::test]
    async fn the_system_keeps_little_for_a_client_beside_what_is_on_its_way() {
        let (seen, mut unsent) = tokio::sync::mpsc::channel(1);
        let switch = async move |request: axum::extract::Request| {
            Switch::of(&request).unwrap().hand_to(move |upgraded| {
                seen.try_send(SockRef::from(&upgraded.stream).tcp_notsent_lowat().unwrap()).unwrap();
            });
            (axum::http::StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "test")])
        };
        let (address, ..) = narrow_pod(Router::new().route("/", axum::routing::get(switch))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n").await.unwrap();
        assert_eq!(unsent.recv().await, Some(UNSENT_BYTES));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_for_nothing_is_ended() {
        for begun in ["", "GET / HTT", "GET / HTTP/1.1\r\nHost: test\r\n"] {
            let (address, ..) = narrow_pod(Router::new()).await;
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert!(!rest.starts_with(b"HTTP/1.1 2"), "{begun}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_ended_between_requests() {
        let (address, ..) = narrow_pod(Router::new()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 404"));
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_does_not_keep_the_server_from_stopping() {
        let (started, mut begun) = tokio::sync::mpsc::channel(1);
        let hang = async move || {
            let _ = started.send(()).await;
            std::future::pending::<()>().await;
        };
        let (address, tasks, stop) = narrow_pod(Router::new().route("/", axum::routing::get(hang))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        begun.recv().await.unwrap();
        stop.cancel();
        tasks.ended().await;
    }
}
