//! From claims to an admitted session: lock it, evict the old owner, register its routes. All or nothing.

mod error;
mod lock;
mod start;

use std::sync::Arc;

use daisi_ws_domain::{
    claims::Claims,
    ids::{ChatId, ConnectionId, PodId},
    session::LockOwner,
};
use tokio::{sync::watch, time::Instant};

use self::error::STORE_PATIENCE;
pub use self::error::{ConnectError, Unavailable};
use self::lock::Locking;
pub use self::start::Wishes;
pub(crate) use self::{lock::Locker, start::Start};
use super::{release::Releaser, socket_services::SocketServices};
use crate::{
    application::{
        hub::{
            mailbox::MailboxLimits,
            registry::Hub,
            session::{Session, session_line},
        },
        replay::Replayer,
        routes::writer::RouteWriter,
    },
    config::{CompressionMode, Config},
    metrics::{Metrics, labels::Takeover},
    ports::{StoreError, log_store_error},
    runtime::{chance, watched::Watched, workers::Worker},
};

/// Lets sessions in: checks for room, takes the lock, sets the routes. One a pod.
pub struct Connector {
    /// This pod.
    pub me: PodId,
    /// True once this pod has its place in the fleet, without which its routes would mean nothing to others.
    pub place: Arc<Watched<bool>>,
    /// Where sessions are entered, and taken out again.
    pub entries: Entries,
    /// Their locks.
    pub locker: Locker,
    /// Reads what clients missed.
    pub replayer: Arc<Replayer>,
    /// For the task of each socket.
    pub socket: Arc<SocketServices>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// What a session has beside its lock: a place in the hub, and routes.
pub struct Entries {
    /// Where sessions are.
    pub hub: Arc<Hub>,
    /// Confirms routes.
    pub writer: Arc<RouteWriter>,
    /// Gives locks back.
    pub releaser: Releaser,
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
        wishes: Wishes,
        request_id: &str,
        worker: &Arc<Worker>,
    ) -> Result<Admission, ConnectError> {
        let started = Instant::now();
        let config = self.config.borrow().clone();
        let connection = ConnectionId::from_random(chance::draw());
        let session = Session::new(claims, self.me.clone(), connection, mailbox_limits(&config), request_id, worker);
        let session = Arc::new(session.that_can_move(wishes.moves));
        let kind = session.kind().as_str();
        self.entries.hub.enter(&session, config.app.max_connections)?;
        let mut admission = Admission {
            session: Arc::clone(&session),
            chat: None,
            start: Start::default(),
            took_over: false,
            connector: Arc::clone(self),
        };

        self.in_place().await?;
        match self.locker.lock(&session, &config).await? {
            Locking::Locked(locked) => {
                self.begin(&mut admission, &wishes, locked.saved_chat, &config).await?;
                admission.took_over = locked.took_over;
            }
            Locking::Serves(first) => self.move_from(&first, &mut admission, &wishes, &config).await?,
        }
        // It may have been ended while it was pending.
        if let Some(reason) = session.close_reason() {
            return Err(reason.into());
        }
        let (took, took_over) = (started.elapsed(), admission.took_over);
        let takeover = if took_over { Takeover::Yes } else { Takeover::No };
        self.metrics.connect_seconds.with_label_values(&[kind, takeover.as_str()]).observe(took.as_secs_f64());
        session_line!(session, took_over, duration_ms = took.as_secs_f64() * 1000.0, "a session is open");
        Ok(admission)
    }

    /// Has the session take part in what comes for it, and finds out what it missed.
    async fn begin(
        &self,
        admission: &mut Admission,
        wishes: &Wishes,
        saved_chat: Option<ChatId>,
        config: &Config,
    ) -> Result<(), ConnectError> {
        let session = Arc::clone(&admission.session);
        let wanted = wishes.chat.as_ref().filter(|chat| saved_chat.as_ref() != Some(*chat)).cloned();
        admission.chat = wanted.clone().or(saved_chat).filter(|chat| session.chat_route(chat).is_some());
        session.set_chat(admission.chat.clone());
        self.entries.route(&session).await?;
        if let Some(chat) = wanted.filter(|_| session.is_locked()) {
            self.save(&session, &chat, config).await;
        }
        // From here on, what is stored comes to the session, if only into its mailbox.
        admission.start = self.start(&session, wishes).await?;
        Ok(())
    }

    /// Takes the session over from the first socket of its client, which serves until this second one can go on where it is.
    async fn move_from(
        &self,
        first: &LockOwner,
        admission: &mut Admission,
        wishes: &Wishes,
        config: &Config,
    ) -> Result<(), ConnectError> {
        let session = Arc::clone(&admission.session);
        session.set_moved();
        self.begin(admission, wishes, None, config).await?;
        let locked = self.locker.seize(&session, first, config).await?;
        admission.took_over = true;
        match (&wishes.chat, locked.saved_chat) {
            (Some(chat), saved) if saved.as_ref() != Some(chat) => self.save(&session, chat, config).await,
            // Its client did not say which, so nothing of that chat was read.
            (None, Some(saved)) => self.begin(admission, wishes, Some(saved), config).await?,
            _ => {}
        }
        Ok(())
    }

    /// How a new socket's messages are compressed: with contexts of its own only while there is memory for them.
    #[must_use]
    pub(crate) fn compression_mode(&self, config: &Config) -> CompressionMode {
        match config.app.websocket_compression_mode {
            CompressionMode::ContextTakeover if !self.entries.hub.memory().may_keep_contexts() => {
                CompressionMode::NoContextTakeover
            }
            mode => mode,
        }
    }

    /// Only a convenience for the next connect, and renewal writes it again.
    async fn save(&self, session: &Session, chat: &ChatId, config: &Config) {
        let saved = self.locker.locks.save_chat(session.key(), chat, config.app.selected_chat_ttl);
        if let Ok(Err(error)) = tokio::time::timeout(STORE_PATIENCE, saved).await {
            log_store_error!(&error, "the selected chat could not be saved");
        }
    }

    async fn in_place(&self) -> Result<(), ConnectError> {
        let taken = tokio::time::timeout(STORE_PATIENCE, self.place.wait_for(|taken| taken)).await;
        taken.map(drop).map_err(|_| ConnectError::StoreUnavailable(Unavailable::NotInPlace))
    }
}

impl Entries {
    /// Joins the session's routes and waits until every pod can see them.
    async fn route(&self, session: &Session) -> Result<(), ConnectError> {
        let routes = session.routes();
        tokio::select! {
            biased;
            reason = session.closed() => Err(reason.into()),
            joined = self.writer.join(session, &routes) => match (joined?, session.close_reason()) {
                (true, _) => Ok(()),
                // Anyone who takes a session out of the hub says why first.
                (false, reason) => Err(reason.map_or(ConnectError::Internal, ConnectError::from)),
            },
            () = tokio::time::sleep(STORE_PATIENCE) => Err(StoreError::TimedOut(STORE_PATIENCE).into()),
        }
    }

    /// Gives back all that the session has.
    fn take_out(&self, session: &Session) {
        // Nobody writes or reads it any more, and others may hold the session for a while yet.
        session.mailbox().empty();
        session.set_inbound(0, self.hub.memory());
        self.hub.remove(session.connection());
        self.releaser.release(session);
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
        repair: if config.app.gap_repair { config.resume.max_events } else { 0 },
    }
}

/// A session that is locked and routed. Dropping it, on whatever way out, gives all of that back.
#[derive(Debug)]
pub struct Admission {
    session: Arc<Session>,
    chat: Option<ChatId>,
    start: Start,
    took_over: bool,
    connector: Arc<Connector>,
}

impl Admission {
    /// The session that was let in; its socket is yet to be served.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The chat that it begins with: the one its client wants, or that was selected before.
    #[must_use]
    pub fn chat(&self) -> Option<&ChatId> {
        self.chat.as_ref()
    }

    /// With what else it begins. For the socket's task, once.
    pub(crate) fn take_start(&mut self) -> Start {
        std::mem::take(&mut self.start)
    }

    /// Was the session another socket's before?
    #[must_use]
    pub(crate) fn took_over(&self) -> bool {
        self.took_over
    }

    /// What its socket's task works with.
    pub(crate) fn socket(&self) -> &Arc<SocketServices> {
        &self.connector.socket
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.connector.entries.take_out(&self.session);
    }
}
