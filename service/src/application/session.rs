//! A session of this pod while it lives: what the hub, the renewal and the socket's task share.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::mailbox::{Mailbox, MailboxLimits};
use crate::domain::{
    claims::Claims,
    close::CloseReason,
    ids::{ChatId, ConnectionId, PodId},
    route::RouteKey,
    session::{LockOwner, SessionKey, SessionKind},
};

/// A socket's session, from the moment it wants the lock until everything is given back.
#[derive(Debug)]
pub struct Session {
    key: SessionKey,
    connection: ConnectionId,
    owner: LockOwner,
    claims: Claims,
    mailbox: Mailbox,
    asked: AtomicBool,
    locked: AtomicBool,
    closed: CancellationToken,
    reason: OnceLock<CloseReason>,
    chat: Mutex<Option<ChatId>>,
    active_at: Mutex<Instant>,
}

impl Session {
    /// A session that has nothing yet: no lock, no route.
    #[must_use]
    pub fn new(claims: Claims, pod: PodId, connection: ConnectionId, limits: MailboxLimits) -> Self {
        Self {
            key: claims.session_key(),
            owner: LockOwner::new(pod, connection.clone()),
            connection,
            claims,
            mailbox: Mailbox::new(limits),
            asked: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            closed: CancellationToken::new(),
            reason: OnceLock::new(),
            chat: Mutex::new(None),
            active_at: Mutex::new(Instant::now()),
        }
    }

    /// What is exclusive.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// User or admin.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        self.key.kind()
    }

    /// The socket.
    #[must_use]
    pub fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    /// What stands in the lock while it is ours.
    #[must_use]
    pub fn owner(&self) -> &LockOwner {
        &self.owner
    }

    /// What the token said.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What waits for the socket.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Notes that the lock is being asked for: whatever the answer, the way out must give it back.
    pub fn set_lock_asked(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// May the lock be ours? True also when an answer was lost.
    #[must_use]
    pub fn may_hold_lock(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Notes that the lock was taken: from now on it is renewed.
    pub fn set_locked(&self) {
        self.locked.store(true, Ordering::Release);
    }

    /// Was the lock taken?
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Acquire)
    }

    /// Ends the session. The first reason counts; the socket's task says goodbye with it.
    pub fn close(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
        self.closed.cancel();
    }

    /// Why the session was ended, if it was.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.reason.get().copied()
    }

    /// Waits until the session is ended by somebody else than its client. Cancel-safe.
    pub async fn closed(&self) -> CloseReason {
        self.closed.cancelled().await;
        self.reason.get().copied().unwrap_or(CloseReason::Internal)
    }

    /// The chat that is selected, and its route.
    #[must_use]
    pub fn chat(&self) -> Option<ChatId> {
        self.chat.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the selected chat.
    pub fn set_chat(&self, chat: Option<ChatId>) {
        *self.chat.lock().unwrap_or_else(PoisonError::into_inner) = chat;
    }

    /// The route of a chat of this session; admins have none.
    #[must_use]
    pub fn chat_route(&self, chat: &ChatId) -> Option<RouteKey> {
        match &self.claims {
            Claims::User(c) => {
                Some(RouteKey::Messages { company: c.company.clone(), agent: c.agent.clone(), chat: chat.clone() })
            }
            Claims::Admin(_) => None,
        }
    }

    /// Notes that the client did something, for the adaptive TTL of the lock.
    pub fn touch(&self) {
        *self.active_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long the client has done nothing.
    #[must_use]
    pub fn idle(&self) -> std::time::Duration {
        self.active_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}
