//! The connection that reads, and what befalls a request on it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Client, Message, Request, Subscriber, connection::State};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    sync::broadcast::{self, Receiver, Sender},
    time::{Instant, timeout},
};

use super::super::{
    connect::{Happening, NatsStartError, Target},
    trouble::{Away, Trouble},
};
use crate::{config::Nats, ports::ReplayError};

const NAME: &str = "daisi-ws-service replay";
/// The start waits so long for the connection: what comes first should not fail for nothing.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for an answer of the leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a direct get's next message: the leader can be asked in its place.
const PIECE_TIMEOUT: Duration = Duration::from_secs(1);
/// What can't be had by direct gets is not tried again before: each try costs a round trip, or [`PIECE_TIMEOUT`].
const UNFIT: Duration = Duration::from_secs(10);
/// Signs that a request may be behind: more come only in an outage.
const SIGNS: usize = 16;

/// What may end a request before its answer.
#[derive(Debug, Clone)]
enum Sign {
    Connected,
    Failed,
    Lost,
    Denied(Arc<str>),
}

#[derive(Debug)]
struct Signs {
    sender: Sender<Sign>,
    trouble: Trouble,
    /// Why no answer can come: the server says so once a connection.
    deaf: Mutex<Option<Arc<str>>>,
}

impl Signs {
    fn deaf(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.deaf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, happening: Happening) {
        let sign = match happening {
            Happening::Connected => {
                self.trouble.connected();
                *self.deaf() = None;
                Sign::Connected
            }
            Happening::Disconnected => Sign::Lost,
            Happening::Failed(text) => {
                self.trouble.refused(&text);
                Sign::Failed
            }
            Happening::Error(text) => {
                self.trouble.error(&text);
                if self.trouble.lacks(&text).is_none() {
                    return;
                }
                let text: Arc<str> = text.into();
                if text.to_ascii_lowercase().contains("for subscription to") {
                    *self.deaf() = Some(Arc::clone(&text));
                }
                Sign::Denied(text)
            }
        };
        // An error is that nobody waits.
        let _ = self.sender.send(sign);
    }
}

/// A connection of its own, so that a storm of reads delays no event.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    signs: Arc<Signs>,
    /// When direct gets were found unfit.
    unfit: Mutex<Option<Instant>>,
}

impl Link {
    /// Waits a while for the connection, and goes on trying without end.
    pub(super) async fn connect(nats: &Nats) -> Result<Self, NatsStartError> {
        let target = Target::read(nats).await?;
        let (sender, mut begun) = broadcast::channel(SIGNS);
        let signs = Arc::new(Signs { sender, trouble: Trouble::new(nats), deaf: Mutex::default() });
        let told = Arc::clone(&signs);
        let client = target.connect(NAME, true, move |happening| told.take_in(happening)).await?;
        let _ = timeout(START_PATIENCE, begun.recv()).await;
        Ok(Self { client, signs, unfit: Mutex::default() })
    }

    fn away(&self, away: Away) -> ReplayError {
        ReplayError::unreachable(self.signs.trouble.said(away))
    }

    /// What ends a request from now on.
    fn watched(&self) -> Result<Receiver<Sign>, ReplayError> {
        let signs = self.signs.sender.subscribe();
        if self.client.connection_state() != State::Connected {
            return Err(self.away(Away::NoConnection));
        }
        match self.signs.deaf().as_deref().and_then(|text| self.signs.trouble.lacks(text)) {
            Some(denied) => Err(ReplayError::refused(denied)),
            None => Ok(signs),
        }
    }

    /// Waits until there will be no answer on `subject`.
    async fn spoilt(&self, signs: &mut Receiver<Sign>, subject: &str) -> ReplayError {
        loop {
            match signs.recv().await {
                Ok(Sign::Lost) => return self.away(Away::Lost),
                Ok(Sign::Denied(text)) => {
                    let concerns = self.signs.deaf().is_some() || text.split('"').nth(1) == Some(subject);
                    if let Some(denied) = self.signs.trouble.lacks(&text).filter(|_| concerns) {
                        return ReplayError::refused(denied);
                    }
                }
                Ok(Sign::Connected | Sign::Failed) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return self.away(Away::Lost),
            }
        }
    }

    /// Asks the leader.
    pub(super) async fn ask(&self, subject: &str, question: Bytes) -> Result<Message, ReplayError> {
        let mut signs = self.watched()?;
        let request = Request::new().payload(question).timeout(Some(ANSWER_TIMEOUT));
        let answer = timeout(ANSWER_TIMEOUT, self.client.send_request(subject.to_owned(), request));
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(Ok(message)) => Ok(message),
                Ok(Err(error)) => Err(ReplayError::unreachable(error)),
                Err(_) => Err(self.away(Away::NoAnswer)),
            },
            spoilt = self.spoilt(&mut signs, subject) => Err(spoilt),
        }
    }

    /// Asks for what is answered by several messages.
    pub(super) async fn ask_for_many<'a>(&'a self, subject: &'a str, question: Bytes) -> Result<Answers<'a>, ReplayError> {
        let signs = self.watched()?;
        let asked = timeout(ANSWER_TIMEOUT, async {
            let inbox = self.client.new_inbox();
            let messages = self.client.subscribe(inbox.clone()).await.map_err(ReplayError::unreachable)?;
            let sent = self.client.publish_with_reply(subject.to_owned(), inbox, question).await;
            sent.map_err(ReplayError::unreachable).map(|()| messages)
        });
        let messages = asked.await.map_err(|_| self.away(Away::NoRequest))??;
        Ok(Answers { link: self, subject, signs, messages })
    }

    /// Are direct gets worth a try?
    pub(super) fn is_fit_for_direct(&self) -> bool {
        let unfit = self.unfit.lock().unwrap_or_else(PoisonError::into_inner);
        unfit.is_none_or(|since| since.elapsed() >= UNFIT)
    }

    /// They were not.
    pub(super) fn is_unfit_for_direct(&self) {
        *self.unfit.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// Messages that answer one question. The server is told to send no more when it is dropped.
pub(super) struct Answers<'a> {
    link: &'a Link,
    subject: &'a str,
    signs: Receiver<Sign>,
    messages: Subscriber,
}

impl Answers<'_> {
    /// The next, if it comes in time.
    pub(super) async fn next(&mut self) -> Option<Message> {
        tokio::select! {
            biased;
            message = timeout(PIECE_TIMEOUT, self.messages.next()) => message.ok().flatten(),
            _ = self.link.spoilt(&mut self.signs, self.subject) => None,
        }
    }
}
