//! The second socket of a listener that was asked to move.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use daisi_ws_domain::{ids::ChatId, resume::Cursor};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    dial::{Dialer, Ended},
    line::{self, Line},
};
use crate::{config::Secret, runtime::backoff::Backoff};

/// Waits between attempts at a second socket, as those of the browser client.
const WAITS: Backoff = Backoff::new(Duration::from_millis(400), Duration::from_secs(4));
/// The longest wait for the `ready` of a second socket.
const READY: Duration = Duration::from_secs(5);

/// What comes of an attempt: a socket that has the session, with its first frame.
pub(super) type Arrival = Result<(Line, Utf8Bytes), Ended>;

/// What an attempt at a socket takes.
pub(super) struct Wish {
    pub(super) dialer: Arc<Dialer>,
    pub(super) key: Option<Secret>,
    pub(super) token: Option<Secret>,
    pub(super) chat: Option<ChatId>,
    pub(super) cursor: Option<Cursor>,
}

impl Wish {
    /// Opens a socket.
    pub(super) async fn dial(&self) -> Result<Line, Ended> {
        let secrets = (self.key.as_ref().map(Secret::expose), self.token.as_ref().map(Secret::expose));
        self.dialer.dial(secrets, self.chat.as_ref(), self.cursor.as_ref()).await.map(Line::new)
    }

    /// Opens a socket after so long, and waits until it has the session: its first frame.
    async fn second(self, after: Duration) -> Arrival {
        sleep(after).await;
        let mut line = self.dial().await?;
        match timeout(READY, line.heard()).await {
            Ok(line::Heard::Frame(first)) => Ok((line, first)),
            Ok(line::Heard::Ended(ended)) => Err(ended),
            Err(_) => Err(Ended::ForNow("no ready in time".to_owned(), Duration::ZERO)),
        }
    }
}

/// A move under way: one attempt after another until its time is over.
pub(super) struct Second {
    until: Instant,
    waits: Backoff,
    attempt: Pin<Box<dyn Future<Output = Arrival> + Send>>,
}

impl Second {
    pub(super) fn new(wish: Wish, within: Duration) -> Self {
        Self { until: Instant::now() + within, waits: WAITS, attempt: Box::pin(wish.second(Duration::ZERO)) }
    }

    /// The wait before the next attempt; none when this was the last.
    pub(super) fn wait(&mut self, ended: &Ended) -> Option<Duration> {
        let Ended::ForNow(_, at_least) = ended else { return None };
        let wait = self.waits.pause().max(*at_least);
        (Instant::now() + wait < self.until).then_some(wait)
    }

    /// Tries again after so long.
    pub(super) fn again(&mut self, wish: Wish, wait: Duration) {
        self.attempt = Box::pin(wish.second(wait));
    }
}

/// What came of an attempt, if one is under way. Cancel-safe.
pub(super) async fn arrived(second: &mut Option<Second>) -> Arrival {
    match second {
        Some(second) => second.attempt.as_mut().await,
        None => pending().await,
    }
}
