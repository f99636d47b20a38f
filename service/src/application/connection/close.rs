//! The end of a socket: what still waits, why it ends, and the closing handshake.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use daisi_ws_domain::{
    close::CloseReason,
    frame::{ErrorBody, Frame},
};
use daisi_ws_websocket::{Message, SocketError, encode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout, timeout_at},
};

use super::{Connection, WRITE_BATCH_BYTES, count_dropped};
use crate::{application::hub::mailbox::item::Item, metrics::labels::Dropped};

/// A client that has read all it was sent says goodbye within this time, or not at all. One that was slow has as long as the
/// whole may take: who knows what the system still has for it.
const ANSWER: Duration = Duration::from_secs(1);
/// To a client that takes no byte for this long, nothing more can be said.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket whose lock is about to run out has that much time, and says nothing but goodbye if it comes later than this.
const UNCONFIRMED: Duration = Duration::from_millis(500);

/// Why a goodbye does not come to its end.
enum Broken {
    /// The client is gone, and will miss nothing that it is not told of.
    Lost,
    /// It takes nothing any more.
    Stalled,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Writes what still waits, the reason, and the close frame; waits for the client's. All that for as long as the client takes
    /// bytes, within the write time-out, or while the pod drains, within the drain's time. How many events were not written.
    pub(super) async fn say_goodbye(mut self, reason: CloseReason) -> usize {
        let Some(code) = reason.code() else { return 0 };
        let services = Arc::clone(&self.services);
        let goodbye = services.goodbyes.begin(self.config.app.write_timeout);
        let is_unconfirmed = reason == CloseReason::LockUnconfirmed;
        let until = if is_unconfirmed { goodbye.until().min(Instant::now() + UNCONFIRMED) } else { goodbye.until() };
        let said = tokio::select! {
            biased;
            () = services.goodbyes.over() => Err(Broken::Stalled),
            said = timeout_at(until, self.farewell(code, reason)) => said.unwrap_or(Err(Broken::Stalled)),
        };
        // A client that has left has no use for what it did not take.
        let has_left = reason == CloseReason::ClientClosed || matches!(said, Err(Broken::Lost));
        let unwritten = if has_left { 0 } else { self.unwritten() };
        if unwritten > 0 || matches!(said, Err(Broken::Stalled)) {
            count_dropped(&services.metrics, Dropped::Cut, self.session.kind(), unwritten);
            goodbye.cut(unwritten);
        }
        unwritten
    }

    async fn farewell(&mut self, code: u16, reason: CloseReason) -> Result<(), Broken> {
        // To a client that takes no bytes or has left, nothing more can be said.
        let is_hopeless = matches!(
            reason,
            CloseReason::ClientClosed | CloseReason::SlowClient | CloseReason::PongTimeout | CloseReason::MemoryPressure
        );
        let patience = if is_hopeless { ANSWER } else { PATIENCE };
        let mut is_slow = self.outbound.was_stuck();
        let is_late = |until: Instant| reason == CloseReason::LockUnconfirmed && until + UNCONFIRMED <= Instant::now();
        if !is_hopeless {
            self.services.hub.catch_up(&self.session);
            // Another may have the session by then.
            while !self.session.lock_confirmed_until().is_some_and(is_late) {
                let mut items = self.session.mailbox().take(WRITE_BATCH_BYTES).items;
                if items.is_empty() {
                    // There is no time to read it again; who comes back with a cursor has it then.
                    items.extend(self.give_up_mending().map(|gap| Item::Gap(Box::new(gap))));
                }
                if items.is_empty() {
                    break;
                }
                let items = self.stamped(items);
                self.outbound.add_items(items, &mut self.compressor, &mut self.socket);
                self.flush(patience, &mut is_slow).await?;
            }
            if let Some((code, text)) = reason.error() {
                self.send(&Frame::error(&ErrorBody::new(code, text)));
            }
        }
        self.socket.queue(encode::close(Some(code), reason.as_str()));
        self.flush(patience, &mut is_slow).await?;
        let answer = async {
            match reason {
                CloseReason::ClientClosed => {}
                CloseReason::ProtocolError
                | CloseReason::InvalidData
                | CloseReason::MessageTooBig
                | CloseReason::RateLimited
                | CloseReason::MemoryPressure => self.hang_up().await,
                _ => self.wait_for_close().await,
            }
        };
        if is_slow && !is_hopeless {
            answer.await;
        } else {
            let _ = timeout(ANSWER, answer).await;
        }
        let _ = timeout(ANSWER, poll_fn(|cx| self.socket.poll_shutdown(cx))).await;
        Ok(())
    }

    /// Writes what is queued, for as long as some of it is taken.
    async fn flush(&mut self, patience: Duration, is_slow: &mut bool) -> Result<(), Broken> {
        loop {
            let before = self.socket.backlog();
            let more = poll_fn(|cx| match self.socket.poll_flush(cx) {
                Poll::Ready(flushed) => Poll::Ready(flushed.map(|()| false)),
                Poll::Pending => {
                    *is_slow = true;
                    if self.socket.backlog() == before { Poll::Pending } else { Poll::Ready(Ok(true)) }
                }
            });
            match timeout(patience, more).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    self.outbound.done(&self.services.metrics);
                    return Ok(());
                }
                Ok(Err(_)) => return Err(Broken::Lost),
                Err(_) => return Err(Broken::Stalled),
            }
        }
    }

    /// Reads on until the client says goodbye as well; what else it says is not heard any more.
    async fn wait_for_close(&mut self) {
        loop {
            match poll_fn(|cx| self.socket.poll_receive(cx)).await {
                Ok(Message::Close(_)) | Err(SocketError::Lost(_)) => return,
                Err(SocketError::Protocol(_)) => return self.hang_up().await,
                Ok(_) => {}
            }
        }
    }

    /// Says nothing more, and lets the client come to its end without a look at what it says.
    async fn hang_up(&mut self) {
        let _ = poll_fn(|cx| self.socket.poll_shutdown(cx)).await;
        let _ = self.socket.discard().await;
    }

    /// Events that the system has not taken, or not all of the write that they are in.
    fn unwritten(&self) -> usize {
        let waiting = self.session.mailbox().take(usize::MAX).items;
        self.outbound.events() + waiting.iter().filter(|item| matches!(item, Item::Event(_))).count()
    }
}
