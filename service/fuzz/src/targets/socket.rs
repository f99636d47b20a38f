//! Two sizes of pieces, whether compression is on, then what a client sends: its first part came behind the handshake.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use daisi_ws_websocket::{Message, ProtocolError, Rates, SocketError, Upgraded, WebSocket};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::conversation::{End, HEADER, LIMIT, inflater, ours};

const RATES: Rates = Rates { messages: 20, message_burst: 40, bytes: 16_384 };
/// What the socket reads at once.
const READ: usize = 16 * 1024;

/// A connection that gives pieces of bytes, and then nothing more; what is written to it is nobody's business.
struct Wire<'a> {
    bytes: &'a [u8],
    sizes: [usize; 2],
    is_empty: Rc<Cell<bool>>,
}

impl AsyncRead for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            self.is_empty.set(true);
            return Poll::Pending;
        }
        self.sizes.reverse();
        let (piece, rest) = self.bytes.split_at(self.bytes.len().min(self.sizes[0]).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buffer.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub(super) fn check(input: &[u8]) {
    let Some(([early, size, mode], bytes)) = input.split_first_chunk() else { return };
    let (behind, later) = bytes.split_at(bytes.len().min(usize::from(*early)));
    let is_empty = Rc::new(Cell::new(false));
    let sizes = [1 + usize::from(*size), 1 + 16 * usize::from(*size)];
    let stream = Wire { bytes: later, sizes, is_empty: Rc::clone(&is_empty) };
    let upgraded = Upgraded { stream, answer: Bytes::new(), read: Bytes::copy_from_slice(behind) };
    let began = Instant::now();
    let mut socket = WebSocket::new(upgraded, LIMIT, inflater(*mode)).limited(RATES, LIMIT);
    let (mut heard, mut polls) = (Vec::new(), 0);
    let end = loop {
        polls += 1;
        // Each poll gives a message, has taken in a turn's frames or bytes, or is the last.
        assert!(polls <= 2 * bytes.len() + 4, "{polls} polls for {} bytes", bytes.len());
        match socket.poll_receive(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Message::Close(code))) => break End::Closed(code),
            Poll::Ready(Ok(message)) => heard.push(message),
            Poll::Ready(Err(SocketError::Protocol(error))) => break End::Failed(error.code()),
            Poll::Ready(Err(SocketError::Lost(error))) => crate::fail(&format!("nothing was lost: {error}")),
            Poll::Pending if is_empty.get() => break End::Open,
            Poll::Pending => {}
        }
        assert!(socket.held() <= 2 * (2 * LIMIT + HEADER + READ), "{} bytes are held", socket.held());
    };
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap_or(usize::MAX) + 1;
    let (messages, frames): (Vec<_>, Vec<_>) =
        heard.iter().partition(|message| matches!(message, Message::Text(_) | Message::Binary(_)));
    assert!(messages.len() <= 40 + 20 * seconds, "{} messages in {seconds} s", messages.len());
    assert!(frames.len() <= 5 * (40 + 20 * seconds), "{} pings and pongs in {seconds} s", frames.len());
    let (all, ended) = ours(bytes, &[usize::MAX], inflater(*mode));
    if end == End::Failed(ProtocolError::TooMuch.code()) {
        assert!(all.starts_with(&heard), "what was heard before it was too much is not what was sent");
    } else {
        assert_eq!((heard, end), (all, ended), "the socket hears something else than its decoder");
    }
}
