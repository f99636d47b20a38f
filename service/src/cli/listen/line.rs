//! One socket of a listener, and the questions that show whether anybody is at its other end.

use std::{future::pending, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes, protocol::CloseFrame};

use super::dial::{Ended, Socket};
use crate::telemetry;

/// So long no frame came before the gateway is asked where the session stands, so that the cursor of a quiet one is not old.
pub(super) const QUIET: Duration = Duration::from_secs(25);
/// The same where `ready` did not say it, as a pod that has just begun can't: once a socket.
const SOON: Duration = Duration::from_secs(2);
/// So long it may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Close codes after which another attempt would end in the same way, or take the session from somebody.
pub(super) const FINAL: [u16; 5] = [1000, 4400, 4401, 4402, 4403];
/// The close code that says "slower", and the first wait after it.
pub(super) const SLOWER: (u16, Duration) = (4429, Duration::from_secs(8));
/// The longest goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A socket that is open.
pub(super) struct Line {
    socket: Socket,
    due: Instant,
    asked: bool,
    soon: bool,
}

/// What a socket brought.
pub(super) enum Heard {
    Frame(Utf8Bytes),
    Ended(Ended),
}

impl Line {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, due: Instant::now() + SOON, asked: false, soon: true }
    }

    /// The next frame, or the end. Cancel-safe.
    pub(super) async fn heard(&mut self) -> Heard {
        let lost = |what: &str| Heard::Ended(Ended::ForNow(what.to_owned(), Duration::ZERO));
        loop {
            match timeout_at(self.due, self.socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => return Heard::Frame(text),
                Ok(Some(Ok(Message::Close(frame)))) => return Heard::Ended(closed(frame.as_ref())),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return lost(&telemetry::Chain(&error).to_string()),
                Ok(None) => return lost("the connection ended"),
                Err(_) if self.asked => return lost("it has gone silent"),
                Err(_) => {
                    (self.due, self.asked, self.soon) = (Instant::now() + ANSWER, true, false);
                    if timeout(ANSWER, self.socket.send(Message::text(r#"{"type":"ready"}"#))).await.is_err() {
                        return lost("it takes no bytes");
                    }
                }
            }
        }
    }

    /// A frame came: the other end is there. `stands`: it is known where the session stands.
    pub(super) fn is_alive(&mut self, stands: bool) {
        self.soon &= !stands;
        if !self.soon {
            (self.due, self.asked) = (Instant::now() + QUIET, false);
        }
    }

    /// Whatever the end was: a gateway that still listens hears that nobody is here.
    pub(super) async fn close(mut self) {
        let _ = timeout(GOODBYE, self.socket.close(None)).await;
    }
}

/// What a socket brings next, if there is one. Cancel-safe.
pub(super) async fn heard(line: &mut Option<Line>) -> Heard {
    match line {
        Some(line) => line.heard().await,
        None => pending().await,
    }
}

/// What a close says of the next attempt.
pub(super) fn closed(frame: Option<&CloseFrame>) -> Ended {
    let Some(frame) = frame else { return Ended::ForNow("closed".to_owned(), Duration::ZERO) };
    let code = u16::from(frame.code);
    let what = format!("closed with {code} {}", frame.reason);
    if FINAL.contains(&code) {
        Ended::ForGood(what)
    } else {
        Ended::ForNow(what, if code == SLOWER.0 { SLOWER.1 } else { Duration::ZERO })
    }
}
