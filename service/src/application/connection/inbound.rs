//! What a client says, and what is done about it.

use std::sync::Arc;

use daisi_ws_domain::{
    close::{CloseReason, ErrorCode},
    frame::{ClientFrame, ErrorBody, Frame},
    rate::TokenBucket,
};
use daisi_ws_websocket::{Message, encode};
use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};

use super::{Connection, SELECTION_BURST, SELECTIONS_PER_SECOND, select_chat::select};
use crate::metrics::labels::ClientMessage;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    pub(super) fn on_message(&mut self, message: Message) -> Result<(), CloseReason> {
        self.heard_at = Instant::now();
        self.services.metrics.sharded().bytes_in(message.len());
        if self.has_inbound && matches!(message, Message::Text(_) | Message::Binary(_)) {
            // What is held from now on is of another.
            self.note_inbound(0);
        }
        match message {
            Message::Close(_) => Err(CloseReason::ClientClosed),
            Message::Ping(payload) => {
                self.socket.queue(encode::pong(&payload));
                Ok(())
            }
            Message::Pong(_) => Ok(()),
            Message::Text(text) => {
                self.on_text(&text);
                Ok(())
            }
            Message::Binary(_) => {
                self.refuse(&ErrorBody::new(ErrorCode::BadRequest, "binary messages are not understood; send JSON text"));
                Ok(())
            }
        }
    }

    fn on_text(&mut self, text: &str) {
        self.session.touch();
        match ClientFrame::parse(text) {
            Ok(frame) => {
                self.services.metrics.client_messages_total.with_label_values(&[ClientMessage::Accepted.as_str()]).inc();
                self.on_frame(frame);
            }
            Err(error) => self.refuse(&ErrorBody::new(ErrorCode::BadRequest, error.to_string())),
        }
    }

    fn on_frame(&mut self, frame: ClientFrame) {
        match frame {
            ClientFrame::Ready => {
                let place = self.place();
                self.send(&Frame::ready_echo(place.as_ref()));
            }
            ClientFrame::SelectChat(chat) if self.session.chat_route(&chat).is_none() => {
                self.refuse(&ErrorBody::new(ErrorCode::BadRequest, "admins have no chats to select"));
            }
            ClientFrame::SelectChat(chat) => {
                let now = Instant::now().into_std();
                let full = || Box::new(TokenBucket::new(SELECTIONS_PER_SECOND, SELECTION_BURST, now));
                let wait = self.selections.get_or_insert_with(full).claim(now);
                let selection = select(Arc::clone(&self.services), Arc::clone(&self.session), chat);
                self.selection = Some(if wait.is_zero() {
                    selection.boxed()
                } else {
                    async move {
                        sleep(wait).await;
                        selection.await
                    }
                    .boxed()
                });
            }
        }
    }

    fn refuse(&mut self, body: &ErrorBody) {
        self.services.metrics.client_messages_total.with_label_values(&[ClientMessage::Refused.as_str()]).inc();
        self.send(&Frame::error(body));
    }
}
