//! The end of a pipe that is read slowly, but all the time.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    time::{Sleep, sleep},
};

/// From one read to the next.
const TICK: Duration = Duration::from_millis(10);

/// Gives so many bytes at most in each tick.
pub(crate) struct Slow {
    pipe: DuplexStream,
    bytes_a_tick: usize,
    next: Pin<Box<Sleep>>,
}

impl Slow {
    pub(crate) fn new(pipe: DuplexStream, bytes_a_second: usize) -> Self {
        Self { pipe, bytes_a_tick: bytes_a_second / 100, next: Box::pin(sleep(Duration::ZERO)) }
    }
}

impl AsyncRead for Slow {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.next.as_mut().poll(cx));
        let mut part = buffer.take(self.bytes_a_tick);
        ready!(Pin::new(&mut self.pipe).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        // What was read is in the buffer's own memory.
        buffer.advance(read);
        self.next.set(sleep(TICK));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
