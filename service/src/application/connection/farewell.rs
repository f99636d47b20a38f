//! The end of a socket: what still waits, why it ends, and the closing handshake.

use std::{future::poll_fn, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};

use super::Connection;
use crate::{
    domain::{
        close::CloseReason,
        frame::{ErrorBody, Frame},
    },
    websocket::{Message, encode},
};

/// A socket whose lock is about to run out has that much time, and says nothing but goodbye if it comes later than this.
const FAREWELL_UNCONFIRMED: Duration = Duration::from_millis(500);

/// What waits is still written, and the client's goodbye waited for, for this long after the end.
const FAREWELL: Duration = Duration::from_secs(1);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Writes what still waits, the reason, and the close frame; waits for the client's, for a moment.
    pub(super) async fn say_goodbye(mut self, reason: CloseReason) {
        let Some(code) = reason.code() else { return };
        let hard = self.connector.hard.clone();
        let is_unconfirmed = reason == CloseReason::LockUnconfirmed;
        let is_late = |until: Instant| is_unconfirmed && until + FAREWELL_UNCONFIRMED <= Instant::now();
        let is_late = self.session.lock_confirmed_until().is_some_and(is_late);
        let patience = if is_unconfirmed { FAREWELL_UNCONFIRMED } else { FAREWELL };
        let farewell = async {
            // To a client that takes no bytes or has left, nothing more can be said.
            if !matches!(reason, CloseReason::ClientClosed | CloseReason::SlowClient | CloseReason::PongTimeout) {
                self.connector.hub.catch_up(&self.session);
                let items = self.session.mailbox().take(usize::MAX);
                // Another may have the session by then.
                if !is_late {
                    self.writing.add_items(items, &mut self.compressor, &mut self.socket);
                }
                if let Some((code, text)) = reason.error() {
                    self.send(&Frame::error(&ErrorBody::new(code, text)));
                }
                if !self.flush().await {
                    return;
                }
                self.writing.done(&self.connector.metrics);
            }
            self.socket.queue(encode::close(Some(code), reason.as_str()));
            if !self.flush().await {
                return;
            }
            match reason {
                CloseReason::ClientClosed => {}
                CloseReason::ProtocolError | CloseReason::InvalidData | CloseReason::MessageTooBig => {
                    let _ = poll_fn(|cx| self.socket.poll_shutdown(cx)).await;
                    while poll_fn(|cx| self.socket.poll_discard(cx)).await.is_ok() {}
                }
                _ => self.wait_for_close().await,
            }
            let _ = poll_fn(|cx| self.socket.poll_shutdown(cx)).await;
        };
        tokio::select! {
            biased;
            () = hard.cancelled() => {}
            _ = timeout(patience, farewell) => {}
        }
    }

    async fn flush(&mut self) -> bool {
        poll_fn(|cx| self.socket.poll_flush(cx)).await.is_ok()
    }

    /// Reads on until the client says goodbye as well; what else it says is not heard any more.
    async fn wait_for_close(&mut self) {
        loop {
            match poll_fn(|cx| self.socket.poll_receive(cx)).await {
                Ok(Message::Close(_)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}
