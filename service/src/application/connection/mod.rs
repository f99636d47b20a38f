//! One task a socket: reads what the client says, writes what waits for it, and has one way out.
//!
//! The task is a state machine that is polled as a whole. While what was written has not been taken by the system, nothing more
//! is taken from the mailbox and nothing is read, so that a client which takes no bytes costs what its mailbox may hold and
//! nothing else.

mod close;
mod inbound;
mod mending;
mod outbound;
mod ping_schedule;
mod select_chat;
mod task;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use daisi_ws_domain::{
    close::CloseReason,
    frame::{ErrorBody, Frame},
    ids::ChatId,
    rate::TokenBucket,
    session::SessionKind,
};
use daisi_ws_websocket::{Agreement, ProtocolError, Rates, SocketError, Upgraded, WebSocket};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::coop,
    time::{Instant, Sleep, sleep_until},
};

use self::outbound::{Compressor, Outbound};
use super::{
    admission::{connect::Admission, socket_services::SocketServices},
    hub::{
        mailbox::{Taken, item::Item},
        memory::{Charge, Kind},
        session::Session,
    },
    replay::Mending,
};
use crate::{
    config::{App, Config, OutagePolicy},
    metrics::{Metrics, labels::Dropped},
    runtime::{clock, prefetch::prefetch},
};

/// Written in one go; what is beyond goes in the next, in the same turn if the system has taken all of this.
const WRITE_BATCH_BYTES: usize = 256 * 1024;
/// A socket that has taken no byte for this long counts as taking none. The system says that it takes more once a third of its
/// buffer is free: for a client that reads a megabyte a second, after more than a second where that buffer is large.
const STALL_AFTER: Duration = Duration::from_secs(2);

/// Chats that a client may select in a row, and then in a second: as fast as somebody leafs through them. More have to wait, as
/// each is a handful of commands to the store.
const SELECTION_BURST: u32 = 20;
const SELECTIONS_PER_SECOND: u32 = 5;

/// The end of a selection: the chat whose route is confirmed, or why it is not.
type Selection = BoxFuture<'static, Result<ChatId, ErrorBody>>;

/// In memory as in the source, with what every event touches side by side at the front, as in [`Session`]: each of its lines is
/// fetched anew for nearly every event, and each but the first after the one before.
#[repr(C)]
struct Connection<S> {
    session: Arc<Session>,
    services: Arc<SocketServices>,
    /// Until when the timer need not be looked at, which is a visit to memory of its own, and whom it wakes then.
    watched: Option<(Instant, Waker)>,
    /// The system did not take all at once, and something has waited ever since.
    is_behind: bool,
    /// Something is held of a message that is not whole.
    has_inbound: bool,
    /// Its client is told no place in the stream beyond the one below.
    stays: bool,
    selection: Option<Selection>,
    /// What is read again for it; in a box, as most of the time there is nothing.
    mending: Option<Box<Mending>>,
    /// The highest place in the stream that its client was told.
    safe: u64,
    compressor: Compressor,
    outbound: Outbound,
    socket: WebSocket<S>,
    heard_at: Instant,
    ping_at: Instant,
    expires_at: Option<Instant>,
    /// Goes off at the next deadline, or earlier: it is set anew only when it has gone off, or when a deadline comes before it.
    timer: Pin<Box<Sleep>>,
    /// What it has of its own for compression; most have nothing.
    _contexts: Option<Box<Charge>>,
    /// Selections of chats, each of which is work for the store and other pods. Made with the first.
    selections: Option<Box<TokenBucket>>,
    config: Arc<Config>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    fn new(admission: &Admission, upgraded: Upgraded<S>, agreement: Option<Agreement>) -> Self {
        let (session, services) = (admission.session(), admission.socket());
        let config = services.config.borrow().clone();
        let (app, now) = (&config.app, Instant::now());
        let ping_at = ping_schedule::first(now, app.ping_interval);
        let left = session.claims().expires_at().saturating_sub(clock::now());
        let contexts = agreement.map_or(0, Agreement::contexts);
        let mut connection = Self {
            socket: WebSocket::new(upgraded, app.max_message_bytes, Agreement::inflater(agreement.as_ref()))
                .limited(rates(app), app.max_message_bytes),
            session: Arc::clone(session),
            services: Arc::clone(services),
            compressor: Compressor::new(agreement, app.websocket_compression_threshold),
            outbound: Outbound::default(),
            selections: None,
            selection: None,
            mending: None,
            safe: 0,
            stays: false,
            heard_at: now,
            ping_at,
            expires_at: app.close_on_token_expiry.then(|| now.checked_add(left)).flatten(),
            timer: Box::pin(sleep_until(ping_at)),
            watched: None,
            is_behind: false,
            has_inbound: false,
            _contexts: (contexts > 0).then(|| Box::new(services.hub.memory().charge(Kind::Compression, contexts))),
            config,
        };
        // A token may run out before the first ping is due.
        let first = connection.next_deadline();
        connection.timer.as_mut().reset(first);
        connection
    }

    /// Does all that can be done now; ready with the reason when the socket has to end.
    ///
    /// Anyone who puts something in the mailbox, or ends the session, after the waker is registered has this polled again:
    /// nothing needs to be looked at twice.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        prefetch((self.selection.is_some(), self.outbound.is_idle(), self.socket.is_flushed(), self.socket.is_closed()));
        self.session.register(cx.waker());
        match self.poll_all(cx) {
            Ok(()) => {
                let held = self.socket.held();
                if held > 0 || self.has_inbound {
                    self.note_inbound(held);
                }
                Poll::Pending
            }
            Err(reason) => Poll::Ready(reason),
        }
    }

    fn note_inbound(&mut self, held: usize) {
        self.has_inbound = held > 0;
        self.session.set_inbound(held, self.services.hub.memory());
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.poll_timer(cx)?;
        loop {
            if let Some(reason) = self.session.close_reason() {
                return Err(reason);
            }
            if !self.poll_flush(cx)? {
                return Ok(());
            }
            self.ask_to_move();
            let may_more_wait = self.write_waiting(cx)?;
            if self.is_behind && !may_more_wait && self.socket.is_flushed() {
                self.is_behind = false;
                self.session.mailbox().set_behind(None);
            }
            if !self.poll_flush(cx)? {
                return Ok(());
            }
            let more = may_more_wait || self.poll_mending(cx)? || self.poll_selection(cx) || self.poll_message(cx)?;
            if !more {
                return Ok(());
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if let Some((until, waker)) = &self.watched
            && Instant::now() < *until
            && waker.will_wake(cx.waker())
        {
            return Ok(());
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            self.on_timer()?;
            let next = self.next_deadline();
            self.timer.as_mut().reset(next);
        }
        let until = self.confirmed_until()?.map_or(self.timer.deadline(), |until| until.min(self.timer.deadline()));
        // A timer that is polled by a task which has done enough for this turn is not set.
        self.watched = coop::has_budget_remaining().then(|| (until, cx.waker().clone()));
        Ok(())
    }

    /// Until when the socket may write, where its lock must be confirmed. [`LockDeadlines`](super::admission::lock_deadlines)
    /// closes it then; but a process that stood still may get to its sockets first.
    fn confirmed_until(&self) -> Result<Option<Instant>, CloseReason> {
        if self.services.config.borrow().app.redis_outage_policy != OutagePolicy::Strict {
            return Ok(None);
        }
        if self.session.is_lock_unconfirmed(Instant::now()) {
            return Err(CloseReason::LockUnconfirmed);
        }
        Ok(self.session.lock_confirmed_until())
    }

    /// True when the system has taken everything. Until then the socket may take its time, but not longer than the write
    /// time-out.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.socket.is_flushed() {
            return Ok(true);
        }
        let before = self.socket.backlog();
        match self.socket.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                if self.outbound.was_stuck() {
                    // Taking bytes is a sign of life as well.
                    self.heard_at = Instant::now();
                    self.session.mailbox().set_stalled(false);
                }
                self.outbound.done(&self.services.metrics);
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(CloseReason::ConnectionLost),
            Poll::Pending => {
                if !self.outbound.was_stuck() || self.socket.backlog() != before {
                    self.on_slow_progress(cx);
                }
                Ok(false)
            }
        }
    }

    /// The system has taken some, but not all: slow is not stalled.
    fn on_slow_progress(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        self.heard_at = now;
        if !self.outbound.was_stuck() {
            self.is_behind = true;
            self.session.mailbox().set_behind(Some(self.outbound.bytes()));
        }
        if self.outbound.is_stalled() {
            self.session.mailbox().set_stalled(false);
        }
        let has_a_timer = self.outbound.was_stuck() && !self.outbound.is_stalled();
        self.outbound.set_stuck(now);
        if !has_a_timer {
            // To be polled at least once, or it wakes nobody.
            self.arm(cx);
        }
    }

    fn poll_selection(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(selection) = &mut self.selection else { return false };
        // What the session lacks is of the routes that it is on.
        if self.session.mailbox().is_behind() {
            return false;
        }
        let Poll::Ready(selected) = selection.as_mut().poll(cx) else { return false };
        self.selection = None;
        match selected {
            Ok(chat) => self.send(&Frame::chat_selected(&chat)),
            Err(body) => self.send(&Frame::error(&body)),
        }
        true
    }

    /// While a selection is under way, nothing is read: answers keep the order of the questions.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.selection.is_some() {
            return Ok(false);
        }
        match self.socket.poll_receive(cx) {
            Poll::Ready(Ok(message)) => {
                self.on_message(message)?;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(reason_of(&error)),
            Poll::Pending => Ok(false),
        }
    }

    /// Writes a batch of what waits in the mailbox, as far as the system takes it now. True if the batch was full: nobody wakes
    /// the task for what is left.
    fn write_waiting(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let Taken { items, mend } = self.session.mailbox().take(WRITE_BATCH_BYTES);
        if let Some(order) = mend {
            self.begin_mending(*order);
        }
        if items.is_empty() {
            return Ok(false);
        }
        let items = self.stamped(items);
        let is_full = items.iter().map(Item::bytes).sum::<usize>() >= WRITE_BATCH_BYTES;
        let written = self.outbound.write_items(cx, items, &mut self.compressor, &mut self.socket);
        written.map_err(|_| CloseReason::ConnectionLost)?;
        if self.socket.is_flushed() {
            self.outbound.done(&self.services.metrics);
        }
        Ok(is_full)
    }

    fn next_deadline(&self) -> Instant {
        let patience = match self.outbound.stuck_since() {
            Some(since) if self.outbound.is_stalled() => since + self.config.app.write_timeout,
            Some(since) => since + STALL_AFTER.min(self.config.app.write_timeout),
            None => self.heard_at + self.config.app.pong_wait,
        };
        self.expires_at.into_iter().fold(self.ping_at.min(patience), Instant::min)
    }

    /// Makes the timer go off no later than the next deadline.
    fn arm(&mut self, cx: &mut Context<'_>) {
        let next = self.next_deadline();
        if next < self.timer.deadline() {
            self.timer.as_mut().reset(next);
            self.watched = None;
            if self.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }

    fn on_timer(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(CloseReason::TokenExpired);
        }
        match self.outbound.stuck_since() {
            Some(since) if now >= since + self.config.app.write_timeout => return Err(CloseReason::SlowClient),
            Some(since) if now >= since + STALL_AFTER => {
                self.outbound.set_stalled();
                let dropped = self.session.mailbox().set_stalled(true);
                count_dropped(&self.services.metrics, Dropped::BufferFull, self.session.kind(), dropped);
            }
            Some(_) => {}
            // Nor is one heard that never comes to the end of what it says.
            None if self.has_inbound
                && self.session.inbound().is_some_and(|(_, since)| now >= since + self.config.app.pong_wait) =>
            {
                return Err(CloseReason::PongTimeout);
            }
            None if now >= self.heard_at + self.config.app.pong_wait => return Err(CloseReason::PongTimeout),
            None => {}
        }
        if now >= self.ping_at {
            let interval = self.config.app.ping_interval;
            self.ping_at = ping_schedule::at((self.ping_at + interval).max(now), interval);
            // To who takes no bytes, a ping says nothing.
            if self.socket.is_flushed() {
                self.socket.ping();
            }
        }
        Ok(())
    }

    fn send(&mut self, frame: &Frame) {
        self.outbound.add_frame(frame, &mut self.socket);
    }
}

/// Counts events that waited for a socket and will not be written.
fn count_dropped(metrics: &Metrics, why: Dropped, kind: SessionKind, events: usize) {
    if events > 0 {
        metrics.websocket_messages_dropped_total.with_label_values(&[why.as_str(), kind.as_str()]).inc_by(events as u64);
    }
}

fn rates(app: &App) -> Rates {
    Rates {
        messages: app.client_messages_per_second,
        message_burst: app.client_message_burst,
        bytes: app.client_bytes_per_second,
    }
}

/// What an error of the socket means.
fn reason_of(error: &SocketError) -> CloseReason {
    match error {
        SocketError::Protocol(ProtocolError::TooBig) => CloseReason::MessageTooBig,
        SocketError::Protocol(ProtocolError::Violation(_)) => CloseReason::ProtocolError,
        SocketError::Protocol(ProtocolError::Invalid) => CloseReason::InvalidData,
        SocketError::Protocol(ProtocolError::TooMuch) => CloseReason::RateLimited,
        SocketError::Lost(_) => CloseReason::ConnectionLost,
    }
}

#[cfg(test)]
mod tests;
