//! From claims to an admitted session: lock it, evict the old owner, register its routes. All or nothing.

mod lock;

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    claims::Claims,
    close::{CloseReason, ErrorCode},
    frame::ErrorBody,
    ids::{ChatId, ConnectionId, PodId},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    evict::Evictor, goodbyes::Goodbyes, killer::Killer, lock_deadlines::LockDeadlines, owners::Owners, release::Releaser,
};
use crate::{
    application::{
        hub::{
            mailbox::MailboxLimits,
            registry::{Hub, Refusal},
            session::{Session, session_line},
        },
        routes::writer::RouteWriter,
    },
    config::{CompressionMode, Config},
    metrics::{Metrics, labels::Takeover},
    ports::{SessionLocks, StoreError},
    runtime::workers::Worker,
};

/// A new session is refused when the store does not answer within this time.
const STORE_PATIENCE: Duration = Duration::from_millis(900);

/// What of the store was missing. Clients are told the same of all of them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    /// It could not do it, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This pod is not announced yet, so others would not know its routes.
    #[error("this pod has no place in the fleet yet")]
    NotInPlace,
    /// The lock ran out before it was renewed.
    #[error("the session's lock was not confirmed in time")]
    LockUnconfirmed,
    /// Many wait, and the last that asked did not get it: nobody else waits for that.
    #[error("the store was not asked again so soon")]
    NotAsked(#[source] Arc<Unavailable>),
}

impl Unavailable {
    /// Does it concern every session? What is wrong with one key does not.
    #[must_use]
    pub fn is_of_all(&self) -> bool {
        !matches!(self, Self::Store(error) if error.is_of_one_key())
    }

    /// In one word, for `error.kind` in logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Store(error) => error.as_str(),
            Self::NotInPlace => "not_in_place",
            Self::LockUnconfirmed => "lock_unconfirmed",
            Self::NotAsked(_) => "store_not_asked",
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Store(error) => error.advice(),
            Self::NotAsked(before) => before.advice(),
            Self::NotInPlace | Self::LockUnconfirmed => "see what the log says of the session store, and whether it is slow",
        }
    }
}

/// Why a session could not be had. Nothing is left behind.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The pod has all the sockets it may have.
    #[error("this pod is full; try again, another pod may have room")]
    Full,
    /// The pod stops.
    #[error("this pod is draining; try again, another pod will answer")]
    Draining,
    /// More connects wait for their turn than may, or this one waited too long.
    #[error("this pod opens as many sessions as it can; try again shortly")]
    Busy,
    /// The session store is away, so no exclusive session can be had.
    #[error("the session store is unavailable; try again shortly")]
    StoreUnavailable(#[source] Unavailable),
    /// Another socket took the session while this one connected.
    #[error("the session went to another connection")]
    Replaced,
    /// The token ran out, or is not good any more, while this socket connected.
    #[error("the token has expired; connect with a new one")]
    TokenExpired,
    /// Too much was asked for.
    #[error("too many requests; slow down and try again")]
    RateLimited,
    /// A fault of ours.
    #[error("the session could not be opened; try again")]
    Internal,
}

impl ConnectError {
    /// What the client is told.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        let code = match self {
            Self::Full | Self::Draining | Self::Busy | Self::StoreUnavailable(_) => ErrorCode::ServiceUnavailable,
            Self::Replaced => ErrorCode::SessionConflict,
            Self::TokenExpired => ErrorCode::InvalidToken,
            Self::RateLimited => ErrorCode::RateLimitExceeded,
            Self::Internal => ErrorCode::InternalServerError,
        };
        ErrorBody::new(code, self.to_string())
    }

    /// What of the store was missing, if that is why.
    #[must_use]
    pub fn unavailable(&self) -> Option<&Unavailable> {
        match self {
            Self::StoreUnavailable(why) => Some(why),
            _ => None,
        }
    }

    /// Is it the pod or its store that could not, rather than the client that may not?
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Full | Self::Draining | Self::Busy | Self::StoreUnavailable(_) | Self::Internal)
    }

    /// When to try again, for `Retry-After`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full => Some(Duration::from_secs(5)),
            Self::Draining | Self::StoreUnavailable(_) | Self::RateLimited => Some(Duration::from_secs(1)),
            Self::Busy => Some(Duration::from_secs(2)),
            Self::Replaced | Self::TokenExpired | Self::Internal => None,
        }
    }
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        Self::StoreUnavailable(error.into())
    }
}

// What a request is answered whose session was ended before it was open.
impl From<CloseReason> for ConnectError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::SessionReplaced => Self::Replaced,
            CloseReason::GoingAway => Self::Draining,
            CloseReason::LockUnconfirmed => Self::StoreUnavailable(Unavailable::LockUnconfirmed),
            CloseReason::TokenExpired => Self::TokenExpired,
            CloseReason::RateLimited => Self::RateLimited,
            // A socket is ended for these by its own task, and there is none yet.
            CloseReason::ClientClosed
            | CloseReason::ConnectionLost
            | CloseReason::MessageTooBig
            | CloseReason::ProtocolError
            | CloseReason::InvalidData
            | CloseReason::PongTimeout
            | CloseReason::SlowClient
            | CloseReason::MemoryPressure
            | CloseReason::Internal => Self::Internal,
        }
    }
}

impl From<Refusal> for ConnectError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::Draining => Self::Draining,
        }
    }
}

/// Gets sessions.
pub struct Connector {
    /// This pod.
    pub me: PodId,
    /// True once this pod has its place in the fleet, without which its routes would mean nothing to others.
    pub place: watch::Receiver<bool>,
    /// Where sessions are entered.
    pub hub: Arc<Hub>,
    /// Their locks.
    pub locks: Arc<dyn SessionLocks>,
    /// Knows whether owners of locks still live.
    pub owners: Arc<Owners>,
    /// The way to owners.
    pub killer: Killer,
    /// Closes sessions of this pod.
    pub evictor: Evictor,
    /// Watches over locks, where they must be confirmed.
    pub deadlines: Arc<LockDeadlines>,
    /// Confirms routes.
    pub writer: Arc<RouteWriter>,
    /// Gives locks back.
    pub releaser: Releaser,
    /// How long a goodbye may take.
    pub goodbyes: Arc<Goodbyes>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Ends goodbyes at once.
    pub hard: CancellationToken,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Connector {
    /// Enters, locks and routes a session that is to live on `worker`. Dropping the future gives everything back.
    ///
    /// # Errors
    /// When the session cannot be had; the error says what the client can do.
    pub async fn connect(
        self: &Arc<Self>,
        claims: Claims,
        request_id: &str,
        worker: &Arc<Worker>,
    ) -> Result<Admission, ConnectError> {
        let started = Instant::now();
        let config = self.config.borrow().clone();
        let connection = ConnectionId::from_random(rand::random());
        let session = Session::new(claims, self.me.clone(), connection, mailbox_limits(&config), request_id, worker);
        let session = Arc::new(session);
        let kind = session.kind().as_str();
        self.hub.enter(&session, config.app.max_connections)?;
        let mut admission =
            Admission { session: Arc::clone(&session), restored: None, took_over: false, connector: Arc::clone(self) };

        self.in_place().await?;
        let (saved_chat, took_over) = self.lock(&session, &config).await?;
        admission.took_over = took_over;
        admission.restored = saved_chat.filter(|chat| session.chat_route(chat).is_some());
        session.set_chat(admission.restored.clone());
        self.route(&session).await?;
        // It may have been ended while it was pending.
        if let Some(reason) = session.close_reason() {
            return Err(reason.into());
        }
        let took = started.elapsed();
        let takeover = if took_over { Takeover::Yes } else { Takeover::No };
        self.metrics.connect_seconds.with_label_values(&[kind, takeover.as_str()]).observe(took.as_secs_f64());
        session_line!(session, took_over, duration_ms = took.as_secs_f64() * 1000.0, "a session is open");
        Ok(admission)
    }

    /// How a new socket's messages are compressed: with contexts of its own only while there is memory for them.
    #[must_use]
    pub fn compression_mode(&self, config: &Config) -> CompressionMode {
        match config.app.websocket_compression_mode {
            CompressionMode::ContextTakeover if !self.hub.memory().may_keep_contexts() => CompressionMode::NoContextTakeover,
            mode => mode,
        }
    }

    async fn in_place(&self) -> Result<(), ConnectError> {
        if *self.place.borrow() {
            return Ok(());
        }
        let mut place = self.place.clone();
        let taken = tokio::time::timeout(STORE_PATIENCE, place.wait_for(|taken| *taken)).await;
        if matches!(taken, Ok(Ok(_))) { Ok(()) } else { Err(ConnectError::StoreUnavailable(Unavailable::NotInPlace)) }
    }

    /// Joins the session's routes and waits until every pod can see them.
    async fn route(&self, session: &Session) -> Result<(), ConnectError> {
        let mut routes = vec![session.claims().base_route()];
        routes.extend(session.chat().and_then(|chat| session.chat_route(&chat)));
        tokio::select! {
            biased;
            reason = session.closed() => Err(reason.into()),
            joined = self.writer.join(session, &routes) => match (joined?, session.close_reason()) {
                (true, _) => Ok(()),
                // Whoever takes a session out of the hub says why first.
                (false, reason) => Err(reason.map_or(ConnectError::Internal, ConnectError::from)),
            },
            () = tokio::time::sleep(STORE_PATIENCE) => Err(StoreError::TimedOut(STORE_PATIENCE).into()),
        }
    }
}

fn mailbox_limits(config: &Config) -> MailboxLimits {
    MailboxLimits {
        messages: config.app.websocket_message_buffer_size,
        bytes: config.app.websocket_buffer_max_bytes,
        burst_bytes: config.app.websocket_burst_max_bytes,
        held_bytes: config.app.websocket_burst_total_bytes,
        policy: config.app.websocket_backpressure_drop_policy,
        overflow_timeout: config.app.write_timeout,
    }
}

/// A session that is locked and routed. Dropping it, on whatever way out, gives all of that back.
#[derive(Debug)]
pub struct Admission {
    session: Arc<Session>,
    restored: Option<ChatId>,
    took_over: bool,
    connector: Arc<Connector>,
}

impl Admission {
    /// The session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The chat that was selected before and is again.
    #[must_use]
    pub fn restored_chat(&self) -> Option<&ChatId> {
        self.restored.as_ref()
    }

    /// Was the session another socket's before?
    #[must_use]
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    pub(crate) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.session.mailbox().close();
        self.connector.hub.remove(self.session.connection());
        self.connector.releaser.release(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_ends_a_pending_session_has_its_own_answer() {
        for (reason, status, retry) in [
            (CloseReason::SessionReplaced, 409, false),
            (CloseReason::GoingAway, 503, true),
            (CloseReason::LockUnconfirmed, 503, true),
            (CloseReason::TokenExpired, 403, false),
            (CloseReason::RateLimited, 429, true),
            (CloseReason::Internal, 500, false),
        ] {
            let error = ConnectError::from(reason);
            assert_eq!((error.body().code.http_status(), error.retry_after().is_some()), (status, retry), "{reason:?}");
        }
    }
}
