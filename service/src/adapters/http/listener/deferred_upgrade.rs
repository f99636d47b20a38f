//! From HTTP to a socket on the same connection: who takes it over, and the answer that goes out with what the new owner says
//! first.
//!
//! hyper would write the answer by itself, and the socket's first frame would be a second write. On a connect, a write and its
//! way through the system cost about as much as anything else that is done for it.

use std::{
    fmt,
    future::Future as _,
    io,
    io::IoSlice,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::extract::Request;
use bytes::{Buf as _, Bytes};
use daisi_ws_websocket::Upgraded;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::refusal::Refusal;
use crate::runtime::workers::Worker;

/// What an answer that switches protocols begins with.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// Longest time for a client to read what was written for it: what it does not read holds memory, and a place.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

type Owner = Box<dyn FnOnce(Upgraded<TcpStream>) + Send>;

/// Who owns the connection after the answer that switches protocols. Each connection has one, which every request on it carries.
#[derive(Clone)]
pub(crate) struct DeferredUpgrade {
    owner: Arc<Mutex<Option<Owner>>>,
    worker: Arc<Worker>,
}

impl DeferredUpgrade {
    /// That of a connection on this worker.
    pub(crate) fn on(worker: Arc<Worker>) -> Self {
        Self { owner: Arc::default(), worker }
    }

    /// Where the connection lives, and has to go on living.
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// That of the request's connection; none where it can't be taken over.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        request.extensions().get().cloned()
    }

    /// Names the owner. It is called once the answer is made, and has to write it; or dropped, if the client leaves before.
    pub(crate) fn hand_to(&self, owner: impl FnOnce(Upgraded<TcpStream>) + Send + 'static) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(owner));
    }

    /// Gives the connection to its owner, if it has one. `read` was read behind the request.
    pub(crate) fn complete(&self, connection: HeldIo, read: Bytes) {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).take();
        let HeldIo { stream, answer, .. } = connection;
        if let Some(owner) = owner {
            owner(Upgraded { stream, answer: answer.into(), read });
        }
    }
}

impl fmt::Debug for DeferredUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredUpgrade").finish_non_exhaustive()
    }
}

/// A connection that speaks HTTP; an answer that switches protocols is kept, for who takes the connection over, and one that the
/// parser makes by itself is replaced by one of ours.
#[derive(Debug)]
pub(crate) struct HeldIo {
    stream: TcpStream,
    answer: Vec<u8>,
    /// Of an answer of ours in place of the parser's, what was not written yet.
    refusal: Bytes,
    /// Since the last answer the end of a line was read.
    line_ended: bool,
    /// Something was read since the last request.
    news: Arc<AtomicBool>,
    /// A refusal was written, or is to be: nothing more is answered here.
    refused: bool,
    /// Since the client took less than there was: how long it still has.
    patience: Option<Pin<Box<Sleep>>>,
}

impl HeldIo {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            answer: Vec::new(),
            refusal: Bytes::new(),
            line_ended: false,
            news: Arc::default(),
            refused: false,
            patience: None,
        }
    }

    /// Is the connection's last word a refusal of what was no request?
    pub(crate) fn has_refused(&self) -> bool {
        self.refused
    }

    /// Says of each request, once, whether anything was read since the one before; if not, the client sent it before it had the
    /// answer.
    pub(crate) fn news(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.news)
    }

    /// Refuses what the parser has no answer to. Then [`AsyncWrite::poll_shutdown`] writes it.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        (self.refusal, self.refused) = (refusal.answer(b""), true);
    }

    /// Puts an answer of ours in the place of one that the parser made.
    fn replaces(&mut self, bytes: &[IoSlice<'_>]) -> Option<usize> {
        let first = bytes.iter().find(|slice| !slice.is_empty())?;
        let refusal = Refusal::in_answer(first, self.line_ended)?;
        (self.refusal, self.refused) = (refusal.answer(first), true);
        Some(bytes.iter().map(|slice| slice.len()).sum())
    }

    /// What a write that the client does not take comes to.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(ANSWER_TIMEOUT)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client did not read its answer"))
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.refusal))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps the bytes if they are such an answer. Nothing comes behind one.
    fn keeps(&mut self, bytes: &[IoSlice<'_>]) -> Option<usize> {
        let first = bytes.iter().find(|slice| !slice.is_empty())?;
        if !first.starts_with(SWITCHING) {
            return None;
        }
        bytes.iter().for_each(|slice| self.answer.extend_from_slice(slice));
        Some(bytes.iter().map(|slice| slice.len()).sum())
    }
}

impl AsyncRead for HeldIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.line_ended = self.line_ended || buffer.filled()[before..].contains(&b'\n');
        self.news.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HeldIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(taken) = self.keeps(bytes).or_else(|| self.replaces(bytes)) {
            return Poll::Ready(Ok(taken));
        }
        self.line_ended = false;
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bytes) {
            Poll::Pending => self.poll_patience(cx).map(Err),
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        // All that there was is written.
        self.patience = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
