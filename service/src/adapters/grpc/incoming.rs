//! Accepted connections: no more than a bound, and gone at once when the server is ended.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Connections at a time. A fleet of hundreds of pods has one each way; past this, callers wait in the listener's backlog and time out.
const MAX_CONNECTIONS: usize = 1024;

/// A connection from which nothing comes for this long is broken, so that nobody can hold a place by saying nothing. Keep-alive makes a live one
/// speak every second.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// How long accepting pauses after it failed: it fails for want of file descriptors or memory, and trying on at once would take a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, until the stream is dropped. `end` breaks every one of them.
pub(super) fn connections(listener: TcpListener, end: CancellationToken) -> impl Stream<Item = io::Result<Connection>> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    futures_util::stream::unfold((listener, slots, end), |(listener, slots, end)| async move {
        let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
        let stream = accept(&listener).await;
        let ended = Box::pin(end.clone().cancelled_owned());
        let silence = Box::pin(sleep(MAX_SILENCE));
        Some((Ok(Connection { stream, ended, silence, _slot: slot }), (listener, slots, end)))
    })
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Only latency is lost without it.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a peer's connection; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One accepted connection, which holds its place among [`MAX_CONNECTIONS`].
pub(super) struct Connection {
    stream: TcpStream,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    silence: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The server always has a read pending, so this wakes the connection whatever else it waits for.
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.silence.as_mut().reset(Instant::now() + MAX_SILENCE);
        }
        read
    }
}

impl AsyncWrite for Connection {
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

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn accepted(end: &CancellationToken) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Box::pin(connections(listener, end.clone()));
        let (outside, inside) = futures_util::future::join(TcpStream::connect(address), incoming.next()).await;
        (outside.unwrap(), inside.unwrap().unwrap())
    }

    #[tokio::test]
    async fn a_connection_breaks_when_the_server_ends() {
        let end = CancellationToken::new();
        let (_outside, mut inside) = accepted(&end).await;
        let ending = async { end.cancel() };
        let (read, ()) = futures_util::future::join(inside.read_u8(), ending).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_silent_connection_is_broken_and_one_that_speaks_is_not() {
        let (mut outside, mut inside) = accepted(&CancellationToken::new()).await;
        outside.write_all(b"ab").await.unwrap();
        assert_eq!(inside.read_u8().await.unwrap(), b'a');
        tokio::time::pause();
        tokio::time::advance(MAX_SILENCE - Duration::from_millis(100)).await;
        assert_eq!(inside.read_u8().await.unwrap(), b'b');
        let before = Instant::now();
        assert_eq!(inside.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() >= MAX_SILENCE);
    }
}
