//! One task a socket: reads what the client says, writes what waits for it, and has one way out.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message, Utf8Bytes,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    connect::{Admission, Connector},
    mailbox::Item,
    select_chat::select,
    session::Session,
};
use crate::{
    clock,
    config::Config,
    domain::{
        close::{CloseReason, ErrorCode},
        frame::{ClientFrame, ErrorBody, Frame, FrameKind},
        ids::ChatId,
        rate::TokenBucket,
    },
    metrics::Metrics,
};

/// Written in one go; what is beyond waits for the next.
const WRITE_BATCH_BYTES: usize = 256 * 1024;
/// A socket that has not taken what it was given for this long counts as taking no bytes.
const STALL_AFTER: Duration = Duration::from_millis(500);
/// What waits is still written, and the client's goodbye waited for, for this long after the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Read buffer of a socket. tungstenite allocates and zeroes it at every read, so it is small.
const READ_BUFFER: usize = 4 * 1024;
/// Write buffer of a socket; it grows on use only.
const WRITE_BUFFER: usize = 64 * 1024;

/// The limits of a socket. `max_message_bytes` bounds what a client may send in one message.
#[must_use]
pub fn socket_config(max_message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes))
        .accept_unmasked_frames(false)
}

impl Admission {
    /// Sends `ready` and serves the socket until it ends; then everything is given back. Returns why it ended.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(self, socket: WebSocketStream<S>) -> CloseReason {
        let kind = self.session().kind().as_str();
        let metrics = Arc::clone(&self.connector().metrics);
        let opened = Opened::new(kind, Arc::clone(&metrics));
        let config = self.connector().config.borrow().clone();
        let mut connection = Connection::new(socket, self.session(), self.connector(), &config);
        let reason = connection.run(self.restored_chat()).await;
        // Nothing more is put in the mailbox, and the lock is free, before the client is told.
        self.connector().evictor.evict(self.session().connection(), reason);
        connection.say_goodbye(reason).await;
        metrics.connections_closed_total.with_label_values(&[kind, reason.as_str()]).inc();
        tracing::info!(reason = reason.as_str(), duration_ms = opened.at.elapsed().as_secs_f64() * 1000.0, "a session is closed");
        reason
    }
}

/// Counts an open socket, exactly once on every way out.
struct Opened {
    kind: &'static str,
    at: Instant,
    metrics: Arc<Metrics>,
}

impl Opened {
    fn new(kind: &'static str, metrics: Arc<Metrics>) -> Self {
        metrics.connections_total.with_label_values(&[kind]).inc();
        metrics.active_connections.with_label_values(&[kind]).inc();
        Self { kind, at: Instant::now(), metrics }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.metrics.active_connections.with_label_values(&[self.kind]).dec();
        self.metrics.connection_duration_seconds.with_label_values(&[self.kind]).observe(self.at.elapsed().as_secs_f64());
    }
}

/// The end of a selection: the chat whose route is confirmed, or why it is not.
type Selection = BoxFuture<'static, Result<ChatId, ErrorBody>>;

struct Connection<'a, S> {
    socket: WebSocketStream<S>,
    session: &'a Arc<Session>,
    connector: &'a Connector,
    config: Arc<Config>,
    rate: TokenBucket,
    selection: Option<Selection>,
    heard_at: Instant,
    ping_at: Instant,
    expires_at: Option<Instant>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send> Connection<'a, S> {
    fn new(socket: WebSocketStream<S>, session: &'a Arc<Session>, connector: &'a Connector, config: &Arc<Config>) -> Self {
        let (app, now) = (&config.app, Instant::now());
        // Sockets that came together (after a failover) must not all be pinged together for ever.
        let first_ping = app.ping_interval.mul_f64(rand::random_range(0.5..1.0));
        let left = session.claims().expires_at().saturating_sub(clock::now());
        Self {
            socket,
            session,
            connector,
            rate: TokenBucket::new(app.client_messages_per_second, app.client_message_burst, now.into_std()),
            selection: None,
            heard_at: now,
            ping_at: now + first_ping,
            expires_at: app.close_on_token_expiry.then(|| now.checked_add(left)).flatten(),
            config: Arc::clone(config),
        }
    }

    async fn run(&mut self, restored: Option<&ChatId>) -> CloseReason {
        let ready = Frame::ready(self.connector.me.as_str(), restored);
        if let Err(reason) = self.write(vec![frame_message(&ready)], &[(FrameKind::Ready, 1)]).await {
            return reason;
        }
        let mut timer = pin!(sleep_until(self.next_deadline()));
        loop {
            match self.step(timer.as_mut()).await {
                Ok(()) => timer.as_mut().reset(self.next_deadline()),
                Err(reason) => return reason,
            }
        }
    }

    /// One thing that happens, in the order of what matters most.
    async fn step(&mut self, timer: std::pin::Pin<&mut Sleep>) -> Result<(), CloseReason> {
        tokio::select! {
            biased;
            reason = self.session.closed() => Err(reason),
            () = timer => self.on_timer().await,
            selected = selection(&mut self.selection) => self.on_selected(selected).await,
            // While a selection is under way, nothing else is read: answers keep the order of the questions.
            message = self.socket.next(), if self.selection.is_none() => self.on_message(message).await,
            () = self.session.mailbox().ready() => self.write_waiting().await,
        }
    }

    fn next_deadline(&self) -> Instant {
        let silent_until = self.heard_at + self.config.app.pong_wait;
        self.expires_at.into_iter().fold(self.ping_at.min(silent_until), Instant::min)
    }

    async fn on_timer(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(CloseReason::TokenExpired);
        }
        if now >= self.heard_at + self.config.app.pong_wait {
            return Err(CloseReason::PongTimeout);
        }
        if now >= self.ping_at {
            self.ping_at = now + self.config.app.ping_interval;
            return self.write(vec![Message::Ping(bytes::Bytes::new())], &[]).await;
        }
        Ok(())
    }

    async fn on_message(&mut self, message: Option<Result<Message, WsError>>) -> Result<(), CloseReason> {
        self.heard_at = Instant::now();
        if let Some(Ok(message)) = &message {
            self.connector.metrics.bytes_in().inc_by(message.len() as u64);
        }
        match message {
            None => Err(CloseReason::ConnectionLost),
            Some(Err(error)) => Err(reason_of(&error)),
            Some(Ok(Message::Close(_))) => Err(CloseReason::ClientClosed),
            // tungstenite has queued the pong; the next flush takes it along, and this one makes sure of it.
            Some(Ok(Message::Ping(_))) => self.write(Vec::new(), &[]).await,
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Text(text))) => self.on_text(&text).await,
            Some(Ok(Message::Binary(_))) => {
                self.refuse(ErrorBody::new(ErrorCode::BadRequest, "binary messages are not understood; send JSON text")).await
            }
        }
    }

    async fn on_text(&mut self, text: &str) -> Result<(), CloseReason> {
        if !self.rate.take(Instant::now().into_std()) {
            return Err(CloseReason::RateLimited);
        }
        self.session.touch();
        match ClientFrame::parse(text) {
            Ok(frame) => {
                self.connector.metrics.client_messages_total.with_label_values(&["accepted"]).inc();
                self.on_frame(frame).await
            }
            Err(error) => self.refuse(ErrorBody::new(ErrorCode::BadRequest, error.to_string())).await,
        }
    }

    async fn on_frame(&mut self, frame: ClientFrame) -> Result<(), CloseReason> {
        match frame {
            ClientFrame::Ready => self.write(vec![frame_message(&Frame::ready_echo())], &[(FrameKind::Ready, 1)]).await,
            ClientFrame::SelectChat(chat) if self.session.chat_route(&chat).is_none() => {
                self.refuse(ErrorBody::new(ErrorCode::BadRequest, "admins have no chats to select")).await
            }
            ClientFrame::SelectChat(chat) => {
                self.selection = Some(select(self.connector.clone(), Arc::clone(self.session), chat).boxed());
                Ok(())
            }
        }
    }

    async fn on_selected(&mut self, selected: Result<ChatId, ErrorBody>) -> Result<(), CloseReason> {
        self.selection = None;
        match selected {
            Ok(chat) => self.write(vec![frame_message(&Frame::chat_selected(&chat))], &[(FrameKind::ChatSelected, 1)]).await,
            Err(body) => self.send_error(&body).await,
        }
    }

    async fn refuse(&mut self, body: ErrorBody) -> Result<(), CloseReason> {
        self.connector.metrics.client_messages_total.with_label_values(&["refused"]).inc();
        self.send_error(&body).await
    }

    async fn send_error(&mut self, body: &ErrorBody) -> Result<(), CloseReason> {
        self.write(vec![frame_message(&Frame::error(body))], &[(FrameKind::Error, 1)]).await
    }

    async fn write_waiting(&mut self) -> Result<(), CloseReason> {
        let batch = Batch::new(self.session.mailbox().take(WRITE_BATCH_BYTES));
        self.write(batch.messages(), &batch.counts()).await?;
        batch.written(&self.connector.metrics);
        Ok(())
    }

    /// Writes everything with one flush at the end, as long as the socket takes bytes within the write time-out.
    async fn write(&mut self, messages: Vec<Message>, counts: &[(FrameKind, u64)]) -> Result<(), CloseReason> {
        let mailbox = self.session.mailbox();
        let deadline = Instant::now() + self.config.app.write_timeout;
        let bytes: usize = messages.iter().map(Message::len).sum();
        let mut writing = pin!(write_all(&mut self.socket, messages));
        let written = tokio::select! {
            biased;
            written = &mut writing => written,
            reason = self.session.closed() => return Err(reason),
            () = tokio::time::sleep(STALL_AFTER) => {
                mailbox.set_stalled(true);
                tokio::select! {
                    biased;
                    written = &mut writing => { mailbox.set_stalled(false); written }
                    reason = self.session.closed() => return Err(reason),
                    () = sleep_until(deadline) => return Err(CloseReason::SlowClient),
                }
            }
        };
        written.map_err(|error| reason_of(&error))?;
        count_sent(&self.connector.metrics, counts, bytes);
        Ok(())
    }

    /// Writes what still waits, the reason, and the close frame; waits for the client's, for a moment.
    async fn say_goodbye(&mut self, reason: CloseReason) {
        let Some(code) = reason.code() else { return };
        let farewell = async {
            // To a client that takes no bytes or has left, nothing more can be said.
            if !matches!(reason, CloseReason::ClientClosed | CloseReason::SlowClient | CloseReason::PongTimeout) {
                let batch = Batch::new(self.session.mailbox().take(usize::MAX));
                let (mut messages, mut counts) = (batch.messages(), batch.counts().to_vec());
                if let Some((code, text)) = reason.error() {
                    messages.push(frame_message(&Frame::error(&ErrorBody::new(code, text))));
                    counts.push((FrameKind::Error, 1));
                }
                let bytes: usize = messages.iter().map(Message::len).sum();
                if write_all(&mut self.socket, messages).await.is_ok() {
                    count_sent(&self.connector.metrics, &counts, bytes);
                    batch.written(&self.connector.metrics);
                }
            }
            let frame = CloseFrame { code: CloseCode::from(code), reason: reason.as_str().into() };
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

fn count_sent(metrics: &Metrics, counts: &[(FrameKind, u64)], bytes: usize) {
    if !metrics.recording() {
        return;
    }
    metrics.bytes_out().inc_by(bytes as u64);
    for (kind, count) in counts.iter().filter(|(_, count)| *count > 0) {
        metrics.messages_sent_total.with_label_values(&[kind.as_str()]).inc_by(*count);
    }
}

/// Waits for the selection that is under way; for ever if there is none.
async fn selection(pending: &mut Option<Selection>) -> Result<ChatId, ErrorBody> {
    match pending {
        Some(selection) => selection.await,
        None => std::future::pending().await,
    }
}

async fn write_all<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    messages: Vec<Message>,
) -> Result<(), WsError> {
    for message in messages {
        socket.feed(message).await?;
    }
    socket.flush().await
}

fn frame_message(frame: &Frame) -> Message {
    Message::Text(Utf8Bytes::try_from(frame.bytes().clone()).unwrap_or_default())
}

/// What is written in one go, and what is measured of it.
struct Batch {
    items: Vec<Item>,
    /// Open while the traced ones among it are written.
    spans: Vec<tracing::Span>,
}

impl Batch {
    fn new(items: Vec<Item>) -> Self {
        let spans = items.iter().filter_map(|item| match item {
            Item::Event(event) => event.write_span(clock::now()),
            Item::Gap(_) => None,
        });
        Self { spans: spans.collect(), items }
    }

    fn messages(&self) -> Vec<Message> {
        let message = |item: &Item| match item {
            Item::Event(event) => Message::Text(event.text.clone()),
            Item::Gap(gap) => frame_message(&Frame::gap(gap)),
        };
        self.items.iter().map(message).collect()
    }

    fn counts(&self) -> [(FrameKind, u64); 2] {
        let events = self.items.iter().filter(|item| matches!(item, Item::Event(_))).count();
        [(FrameKind::Event, events as u64), (FrameKind::Gap, (self.items.len() - events) as u64)]
    }

    /// The kernel has taken all of it: only now is an event delivered, as far as can be seen from here. One look at the clock for the batch.
    fn written(self, metrics: &Metrics) {
        drop(self.spans);
        if !metrics.recording() {
            return;
        }
        let now = clock::now();
        for item in &self.items {
            if let Item::Event(event) = item {
                metrics.written(
                    event.path,
                    now.saturating_sub(event.stored_at),
                    event.event_time.map(|at| now.saturating_sub(at)),
                );
            }
        }
    }
}

/// What an error of the socket means.
fn reason_of(error: &WsError) -> CloseReason {
    match error {
        WsError::Capacity(_) => CloseReason::MessageTooBig,
        WsError::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            CloseReason::ConnectionLost
        }
        WsError::Protocol(_) | WsError::Utf8(_) => CloseReason::ProtocolError,
        _ => CloseReason::ConnectionLost,
    }
}
