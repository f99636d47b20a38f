//! The way to a peer: one connection at a time, each of which has to prove anew who is at its end.
//!
//! A connection is never made again behind a caller's back: a call goes to the process that proved itself, or nowhere.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::client::TlsStream;
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint, Error},
};

use crate::adapters::grpc::{
    CONNECT_TIMEOUT, CONNECTION_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW, proof::SharedNumbers, tls::Tls,
};

/// The way to one address. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    address: Arc<str>,
    tls: Option<Tls>,
    current: Mutex<Option<Connection>>,
}

impl Link {
    /// A way to `host:port`; nothing is sent yet.
    pub(crate) fn open(address: &str, tls: Option<Tls>) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        Ok(Self(Arc::new(Inner { endpoint, address: address.into(), tls, current: Mutex::default() })))
    }

    /// The connection, or a new one that is dialled with its first call. Must be called on a runtime.
    pub(crate) fn connection(&self) -> Connection {
        let mut current = self.lock();
        if let Some(connection) = current.as_ref().filter(|connection| !connection.has_ended()) {
            return connection.clone();
        }
        let state = Arc::<State>::default();
        let dialler = Dialler { address: Arc::clone(&self.0.address), tls: self.0.tls.clone(), state: Arc::clone(&state) };
        let channel = self.0.endpoint.connect_with_connector_lazy(dialler);
        let connection = Connection { channel, state, numbers: SharedNumbers::default() };
        *current = Some(connection.clone());
        connection
    }

    /// Is a connection being made? Then the link must be left alone: closing it now would begin that anew, for ever if the peer
    /// is slow.
    ///
    /// An attempt that nobody waits for any more is not driven on; it stops counting when its time-out is well over.
    pub(crate) fn is_dialling(&self) -> bool {
        let since = self.lock().as_ref().and_then(|connection| *connection.state.dialling());
        since.is_some_and(|since| since.elapsed() < 2 * CONNECT_TIMEOUT)
    }

    /// Are both the same link?
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    dialling_since: Mutex<Option<Instant>>,
    dialled: AtomicBool,
    ended: AtomicBool,
    proved: AtomicBool,
}

impl State {
    fn dialling(&self) -> MutexGuard<'_, Option<Instant>> {
        self.dialling_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection to a peer, made with its first call.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    channel: Channel,
    state: Arc<State>,
    numbers: SharedNumbers,
}

impl Connection {
    /// The channel, to call on.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The numbers of its calls.
    pub(crate) fn numbers(&self) -> SharedNumbers {
        Arc::clone(&self.numbers)
    }

    /// Has the process at its end proved that it is the peer?
    pub(crate) fn is_proved(&self) -> bool {
        self.state.proved.load(Ordering::Acquire)
    }

    /// It has.
    pub(crate) fn note_proof(&self) {
        self.state.proved.store(true, Ordering::Release);
    }

    /// No call goes on it any more.
    pub(crate) fn end(&self) {
        self.state.ended.store(true, Ordering::Release);
    }

    fn has_ended(&self) -> bool {
        self.state.ended.load(Ordering::Acquire)
    }
}

/// Makes the one TCP connection of a channel.
struct Dialler {
    address: Arc<str>,
    tls: Option<Tls>,
    state: Arc<State>,
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<Open>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        if self.state.dialled.swap(true, Ordering::AcqRel) {
            let ended = io::Error::new(io::ErrorKind::ConnectionReset, "the connection has ended; the next call dials anew");
            return Box::pin(std::future::ready(Err(ended)));
        }
        let dialling = Dialling::begin(Arc::clone(&self.state));
        let (address, tls) = (Arc::clone(&self.address), self.tls.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(&*address).await?;
            // Batches are small and wait for an answer: they must not wait for each other's acknowledgements.
            stream.set_nodelay(true)?;
            let wire: Wire = match tls {
                None => Box::new(stream),
                Some(tls) => Box::new(greet(&tls, &address, stream).await?),
            };
            Ok(TokioIo::new(dialling.open(wire)))
        })
    }
}

/// Shows this pod's certificate, and looks at that of the other side.
async fn greet(tls: &Tls, address: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let name = tls.name_at(address).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    tls.connector().connect(name, stream).await.map_err(|error| {
        let why = format!(
            "TLS with the peer failed, does it speak plain text, or have a certificate of another authority or name? {error}"
        );
        io::Error::new(error.kind(), why)
    })
}

/// Both ways of a connection.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Wire = Box<dyn Duplex>;

/// Marks a connection as being dialled; unless it is opened, it has ended when this is dropped.
struct Dialling(Option<Arc<State>>);

impl Dialling {
    fn begin(state: Arc<State>) -> Self {
        *state.dialling() = Some(Instant::now());
        Self(Some(state))
    }

    fn open(mut self, stream: Wire) -> Open {
        let state = self.0.take().unwrap_or_default();
        *state.dialling() = None;
        Open { stream, state }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            *state.dialling() = None;
            state.ended.store(true, Ordering::Release);
        }
    }
}

/// An open connection; it has ended when this is dropped.
struct Open {
    stream: Wire,
    state: Arc<State>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
    }
}

impl AsyncRead for Open {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Open {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
