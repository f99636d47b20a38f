//! A socket: a stream that has been upgraded, read by message and written by frame.

use std::{
    cell::RefCell,
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{
    decode::{Decoder, Message, Step},
    deflate::Inflater,
    encode,
    error::ProtocolError,
    intake::{Intake, Rates},
};

/// The read buffer that all sockets of a thread share.
const READ_BUFFER: usize = 16 * 1024;
/// What a socket takes in before others have their turn: some tens of microseconds.
const FRAMES_A_TURN: u32 = 64;
const BYTES_A_TURN: u32 = 64 * 1024;
/// What is thrown away of a client that is done, before it is not read any more.
const MAX_DISCARDED: usize = 1024 * 1024;
/// Frames in one write.
const WRITE_SLICES: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER].into());
}

/// Why a socket gives no more messages.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The client breaks a rule, and should be told.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The connection is gone, with or without an error.
    #[error("the connection is lost: {0}")]
    Lost(#[from] io::Error),
}

/// A stream on which the opening handshake has been read and is not answered yet.
#[derive(Debug)]
pub struct Upgraded<S> {
    /// The connection, with nothing written after the request.
    pub stream: S,
    /// What accepts the handshake; it has to be written before all else.
    pub answer: Bytes,
    /// What the client has sent behind its request.
    pub read: Bytes,
}

impl<S> From<S> for Upgraded<S> {
    /// A stream whose handshake is behind it.
    fn from(stream: S) -> Self {
        Self { stream, answer: Bytes::new(), read: Bytes::new() }
    }
}

/// What was taken in since others had their turn.
#[derive(Debug, Default)]
struct Turn {
    frames: u32,
    bytes: u32,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.frames >= FRAMES_A_TURN || self.bytes >= BYTES_A_TURN
    }
}

/// A WebSocket on the server's side. Nothing is sent by itself: pings want a [pong](crate::encode::pong) from anyone who reads.
///
/// In memory as in the source, with what every write touches at the front.
#[derive(Debug)]
#[repr(C)]
pub struct WebSocket<S> {
    /// What is to be written: most often one frame, or what is left of it; empty if there is none.
    head: Bytes,
    stream: S,
    decoder: Decoder,
    rest: VecDeque<Bytes>,
    turn: Turn,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// A socket on an upgraded stream. The handshake's answer leaves with the first frame, in one write. Messages may have
    /// `limit` bytes.
    #[must_use]
    pub fn new(upgraded: Upgraded<S>, limit: usize, inflater: Inflater) -> Self {
        let Upgraded { stream, answer, read } = upgraded;
        let mut decoder = Decoder::new(limit, inflater);
        decoder.push(&read);
        Self { stream, decoder, head: answer, rest: VecDeque::new(), turn: Turn::default() }
    }

    /// The same, for a client that may send no more than this in a time: more is [`ProtocolError::TooMuch`].
    #[must_use]
    pub fn limited(mut self, rates: Rates, limit: usize) -> Self {
        let now = Instant::now().into_std();
        let mut intake = Intake::new(rates, limit, now);
        // What came behind the request; the burst has room for it.
        let _ = intake.read(self.decoder.held(), now);
        self.decoder = self.decoder.limited(intake);
        self
    }

    /// The next message. What a client sends without a pause is taken in by turns, between which others are polled.
    ///
    /// # Errors
    /// When the client breaks the protocol, sends too much, or the connection is lost. It must not be polled after that, nor
    /// after [`Message::Close`].
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, SocketError>> {
        loop {
            if self.turn.is_over() {
                self.turn = Turn::default();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.decoder.next_step()? {
                Step::Message(message) => {
                    self.turn.frames += 1;
                    return Poll::Ready(Ok(message));
                }
                Step::Part => self.turn.frames += 1,
                Step::Nothing => match self.poll_read(cx) {
                    Poll::Ready(read) => self.turn.bytes += u32::try_from(read?).unwrap_or(BYTES_A_TURN),
                    Poll::Pending => {
                        self.turn = Turn::default();
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SocketError>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
            if let Some(intake) = self.decoder.intake() {
                intake.read(read.len(), Instant::now().into_std())?;
            }
            self.decoder.push(read);
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Reads on without a look at what comes, once it is said why the socket ends: a connection that is dropped with bytes unread
    /// is reset, and the client may never see why. By turns as well; and anyone who does not stop to send is not read for ever.
    ///
    /// # Errors
    /// When the connection is lost, its proper end counting as one; or when enough was thrown away.
    pub async fn discard(&mut self) -> io::Result<Infallible> {
        self.decoder.give_up();
        let mut discarded = 0;
        while discarded < MAX_DISCARDED {
            discarded += poll_fn(|cx| self.poll_discard(cx)).await?;
            tokio::task::yield_now().await;
        }
        Err(io::ErrorKind::FileTooLarge.into())
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled().len();
            Poll::Ready(if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) })
        })
    }

    /// Bytes of memory that it holds for what the client has not sent all of.
    #[must_use]
    pub fn held(&self) -> usize {
        self.decoder.held()
    }

    /// Queues a ping, whose answer costs the client nothing.
    pub fn ping(&mut self) {
        if let Some(intake) = self.decoder.intake() {
            intake.asked();
        }
        self.queue(encode::ping());
    }

    /// Puts a frame at the end of what is to be written. The caller bounds how much that is.
    pub fn queue(&mut self, frame: Bytes) {
        if self.head.is_empty() {
            self.head = frame;
        } else {
            self.rest.push_back(frame);
        }
    }

    /// Writes a frame at once, as far as the system takes it now; the rest is queued. Where something waits already, all of it is
    /// queued behind that.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn write(&mut self, cx: &mut Context<'_>, frame: &Bytes) -> io::Result<()> {
        let taken = match self.is_flushed().then(|| Pin::new(&mut self.stream).poll_write(cx, frame)) {
            Some(Poll::Ready(taken)) => taken?,
            Some(Poll::Pending) | None => 0,
        };
        if taken < frame.len() {
            self.queue(frame.slice(taken..));
        }
        Ok(())
    }

    /// Is there nothing left to write?
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.head.is_empty()
    }

    /// How much is left to write: frames, and bytes of the first. It changes whenever the system takes something.
    #[must_use]
    pub fn backlog(&self) -> (usize, usize) {
        (self.rest.len(), self.head.len())
    }

    /// Has the client said that it leaves?
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.decoder.is_closed()
    }

    /// Writes what is queued, as much in one syscall as it takes.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.head.is_empty() {
            let count = ready!(self.poll_write(cx))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
        if self.rest.capacity() > 0 {
            // A burst must not pin its memory for the rest of a long connection.
            self.rest = VecDeque::new();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, &self.head);
        }
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let mut used = 0;
        for (slice, frame) in slices.iter_mut().zip(std::iter::once(&self.head).chain(&self.rest)) {
            *slice = IoSlice::new(frame);
            used += 1;
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..used])
    }

    fn advance(&mut self, mut count: usize) {
        while count >= self.head.len() && !self.head.is_empty() {
            count -= self.head.len();
            self.head = self.rest.pop_front().unwrap_or_default();
        }
        self.head.advance(count);
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
