//! Accepted connections: unproved callers are few, soon gone and may send little; all are gone at once when the server is ended.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::{Accept, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::places::{Caller, Cut, Places};
use crate::{adapters::grpc::tls::Tls, runtime::backoff::Backoff, telemetry::Chain};

/// How long a connection may stay without a proved call. A pod's first call proves it, and a probe asks and goes.
const PROVE_WITHIN: Duration = Duration::from_secs(5);

/// Bytes that may come before a proved call: many times the head of one, and what of its body is under way by then.
const MAX_UNPROVED_BYTES: usize = 256 * 1024;

/// A connection from which nothing comes for this long is broken, so that nobody can hold a place by saying nothing. Keep-alive
/// makes a live one speak every second.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// How long accepting pauses after it failed: it fails for want of file descriptors or memory, and trying on at once would take a
/// processor.
const ACCEPT_PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(100));

/// The connections of a listener, until the stream is dropped. `end` breaks every one of them.
pub(crate) fn connections(
    listener: TcpListener,
    tls: Option<Tls>,
    places: Arc<Places>,
    end: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    futures_util::stream::unfold((listener, tls, places, end), |(listener, tls, places, end)| async move {
        let (stream, address) = accept(&listener).await;
        let own_end = end.child_token();
        let caller = places.admit(address.ip(), own_end.clone());
        let connection = Connection {
            stream: match &tls {
                None => Wire::Plain(stream),
                // Anyone who takes long over it holds up nobody else.
                Some(tls) => Wire::Greeting(Box::new(tls.acceptor().accept(stream))),
            },
            ended: Box::pin(own_end.cancelled_owned()),
            silence: Box::pin(sleep(MAX_SILENCE)),
            unproved: Some(Unproved { until: Box::pin(sleep(PROVE_WITHIN)), bytes: 0 }),
            caller,
        };
        Some((Ok(connection), (listener, tls, places, end)))
    })
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Only latency is lost without it.
                let _ = stream.set_nodelay(true);
                return (stream, address);
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "could not accept a peer's connection; trying again");
                sleep(ACCEPT_PAUSES.nth(1)).await;
            }
        }
    }
}

/// What a connection has left until a call of it is proved.
struct Unproved {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

/// What a connection's bytes go over.
enum Wire {
    Plain(TcpStream),
    Greeting(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Ready once the other side has shown its certificate.
    fn poll_greeted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Greeting(greeting) = self {
            match std::task::ready!(Pin::new(&mut **greeting).poll(cx)) {
                Ok(stream) => *self = Self::Tls(Box::new(stream)),
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "a connection for pods ended in its TLS handshake");
                    let why = format!(
                        "TLS with a peer failed, does it speak plain text, or have a certificate of another authority? {error}"
                    );
                    return Poll::Ready(Err(io::Error::new(error.kind(), why)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// One accepted connection, which holds its place.
pub(crate) struct Connection {
    stream: Wire,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    silence: Pin<Box<Sleep>>,
    /// `None` once a call was proved.
    unproved: Option<Unproved>,
    caller: Caller,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.caller.leave();
    }
}

impl Connection {
    /// Has an unproved caller had its time, or sent what it may? The server always has a read pending, so this wakes the
    /// connection whatever else it waits for.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Option<Cut> {
        let left = self.unproved.as_mut()?;
        if !self.caller.is_unproved() {
            self.unproved = None;
            return None;
        }
        if left.bytes > MAX_UNPROVED_BYTES {
            return Some(Cut::TooMuch);
        }
        left.until.as_mut().poll(cx).is_ready().then_some(Cut::Unproved)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if let Some(cut) = self.poll_patience(cx) {
            self.caller.count(cut);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        std::task::ready!(self.stream.poll_greeted(cx))?;
        let read = match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Wire::Greeting(_) => Poll::Pending,
        };
        if read.is_ready() {
            self.silence.as_mut().reset(Instant::now() + MAX_SILENCE);
            if let Some(left) = &mut self.unproved {
                left.bytes += buf.filled().len() - before;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.stream.poll_greeted(cx))?;
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
            Wire::Greeting(_) => Poll::Pending,
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.stream.poll_greeted(cx))?;
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
            Wire::Greeting(_) => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
            Wire::Greeting(_) => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.stream.poll_greeted(cx))?;
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Wire::Greeting(_) => Poll::Pending,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.stream.poll_greeted(cx))?;
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Wire::Greeting(_) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::metrics::Metrics;

    async fn accepted(end: &CancellationToken) -> (Arc<Metrics>, TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut incoming = Box::pin(connections(listener, None, Places::new(Arc::clone(&metrics)), end.clone()));
        let (outside, inside) = futures_util::future::join(TcpStream::connect(address), incoming.next()).await;
        (metrics, outside.unwrap(), inside.unwrap().unwrap())
    }

    fn cut(metrics: &Metrics, reason: &str) -> u64 {
        metrics.grpc_connections_cut_total.with_label_values(&[reason]).get()
    }

    #[tokio::test]
    async fn a_connection_breaks_when_the_server_ends() {
        let end = CancellationToken::new();
        let (_, _outside, mut inside) = accepted(&end).await;
        let ending = async { end.cancel() };
        let (read, ()) = futures_util::future::join(inside.read_u8(), ending).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_silent_connection_is_broken_and_one_that_speaks_is_not() {
        let (_, mut outside, mut inside) = accepted(&CancellationToken::new()).await;
        inside.caller.prove();
        outside.write_all(b"ab").await.unwrap();
        assert_eq!(inside.read_u8().await.unwrap(), b'a');
        tokio::time::pause();
        tokio::time::advance(MAX_SILENCE - Duration::from_millis(100)).await;
        assert_eq!(inside.read_u8().await.unwrap(), b'b');
        let before = Instant::now();
        assert_eq!(inside.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() >= MAX_SILENCE);
    }

    #[tokio::test]
    async fn one_that_speaks_and_proves_nothing_is_broken_and_one_that_is_let_in_is_not() {
        for let_in in [false, true] {
            let (metrics, mut outside, mut inside) = accepted(&CancellationToken::new()).await;
            outside.write_all(b"abc").await.unwrap();
            assert_eq!(inside.read_u8().await.unwrap(), b'a');
            if let_in {
                inside.caller.tolerate();
            }
            tokio::time::pause();
            tokio::time::advance(PROVE_WITHIN - Duration::from_millis(100)).await;
            assert_eq!(inside.read_u8().await.unwrap(), b'b');
            tokio::time::advance(Duration::from_millis(200)).await;
            assert_eq!(inside.read_u8().await.is_ok(), let_in);
            assert_eq!(cut(&metrics, "unproved"), u64::from(!let_in));
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn one_that_sends_much_and_proves_nothing_is_broken() {
        let (metrics, mut outside, mut inside) = accepted(&CancellationToken::new()).await;
        let flood = tokio::io::AsyncWriteExt::write_all(&mut outside, &[0; 2 * MAX_UNPROVED_BYTES]);
        let mut taken = Vec::new();
        let (_, read) = futures_util::future::join(flood, async {
            let read = inside.read_to_end(&mut taken).await;
            drop(inside);
            read
        })
        .await;
        assert!(read.is_err() && taken.len() <= 2 * MAX_UNPROVED_BYTES);
        assert_eq!(cut(&metrics, "too_much"), 1);
    }
}
