//! The task of a socket: open, then saying goodbye.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use daisi_ws_domain::close::CloseReason;
use daisi_ws_websocket::{Agreement, Upgraded};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::Connection;
use crate::{
    application::{
        admission::{connect::Admission, goodbyes::Owed, socket_services::SocketServices},
        hub::session::{Session, session_line},
    },
    metrics::Metrics,
};

impl Admission {
    /// Sends `ready` and serves the socket until it ends, or the session is aborted; then everything is given back. Returns why
    /// it ended. `agreement` is what was agreed on about compression.
    pub fn serve<S>(
        mut self,
        upgraded: Upgraded<S>,
        agreement: Option<Agreement>,
    ) -> impl Future<Output = CloseReason> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = Opened::new(self.session().kind().as_str(), self.socket());
        let mut connection = Connection::new(&self, upgraded, agreement);
        let start = self.take_start();
        connection.greet(start, self.chat());
        SocketTask::Open(Open { connection, admission: self, opened })
    }
}

/// By hand, and not an async block, so that what every event touches is at the front of the task: see [`Connection`]. The tag is
/// there as well.
#[repr(u8)]
#[expect(clippy::large_enum_variant, reason = "it is open for nearly all of its life")]
enum SocketTask<S> {
    Open(Open<S>),
    /// In a box: its size is a good part of what an idle socket costs, and nothing of it is needed until the end.
    Ending(BoxFuture<'static, CloseReason>),
    Ended,
}

#[repr(C)]
struct Open<S> {
    connection: Connection<S>,
    opened: Opened,
    admission: Admission,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Future for SocketTask<S> {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if let Self::Open(Open { connection, .. }) = &mut *self {
            if connection.session.is_aborted() {
                *self = Self::Ended;
                return Poll::Ready(CloseReason::Internal);
            }
            let reason = ready!(connection.poll(cx));
            if let Self::Open(open) = std::mem::replace(&mut *self, Self::Ended) {
                *self = Self::Ending(Box::pin(open.end(reason)));
            }
        }
        match &mut *self {
            Self::Ending(ending) => ending.as_mut().poll(cx),
            Self::Open(_) | Self::Ended => Poll::Ready(CloseReason::Internal),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Open<S> {
    /// Says goodbye, and gives everything back.
    async fn end(self, reason: CloseReason) -> CloseReason {
        let Self { connection, opened, admission } = self;
        let session = admission.session();
        // Nothing more is put in the mailbox, and the lock is free, before the client is told.
        admission.socket().evictor.evict(session.connection(), reason);
        let unwritten = connection.say_goodbye(reason).await;
        opened.closed(reason, session, unwritten);
        reason
    }
}

/// Counts an open socket, exactly once on every way out.
struct Opened {
    kind: &'static str,
    at: Instant,
    metrics: Arc<Metrics>,
    _owed: Owed,
}

impl Opened {
    fn new(kind: &'static str, services: &SocketServices) -> Self {
        let (metrics, owed) = (Arc::clone(&services.metrics), services.goodbyes.owe());
        metrics.connections_total.with_label_values(&[kind]).inc();
        metrics.active_connections.with_label_values(&[kind]).inc();
        Self { kind, at: Instant::now(), metrics, _owed: owed }
    }

    fn closed(&self, reason: CloseReason, session: &Session, unwritten: usize) {
        self.metrics.connections_closed_total.with_label_values(&[self.kind, reason.as_str()]).inc();
        let duration_ms = self.at.elapsed().as_secs_f64() * 1000.0;
        session_line!(session, reason = reason.as_str(), duration_ms, unwritten, "a session is closed");
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.metrics.active_connections.with_label_values(&[self.kind]).dec();
        self.metrics.connection_duration_seconds.with_label_values(&[self.kind]).observe(self.at.elapsed().as_secs_f64());
    }
}
