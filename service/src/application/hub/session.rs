//! A session of this pod while it lives: what the hub, the renewal and the socket's task share.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use daisi_ws_domain::{
    claims::Claims,
    close::CloseReason,
    ids::{ChatId, ConnectionId, PodId},
    moving::MoveReason,
    route::RouteKey,
    session::{LockOwner, SessionKey, SessionKind},
};
use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::{
    mailbox::{Mailbox, MailboxLimits, Push, item::Item},
    memory::Memory,
    rare::Rare,
    who::Who,
};
pub(crate) use super::{rare::Moving, who::session_line};
use crate::runtime::{prefetch::prefetch, workers::Worker};

/// A socket's session, from the moment it wants the lock until everything is given back.
///
/// In memory as in the source, with what every event touches side by side at the front: for nearly every event, each of its lines
/// is fetched anew.
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    aborted: AtomicBool,
    asked: AtomicBool,
    locked: AtomicBool,
    /// Its client is to be told to move.
    to_move: AtomicBool,
    can_move: bool,
    reason: OnceLock<CloseReason>,
    /// Where the task below runs.
    worker: Arc<Worker>,
    /// The one task that has the session at a time: first its connect, then its socket's.
    task: AtomicWaker,
    mailbox: Mailbox,
    key: SessionKey,
    connection: ConnectionId,
    owner: LockOwner,
    claims: Claims,
    request_id: Box<str>,
    chat: Mutex<Option<ChatId>>,
    rare: Mutex<Rare>,
}

/// A lock counts as confirmed until so long before it may run out, or a quarter of its life: in that time its socket says
/// goodbye.
const CONFIRMATION_MARGIN: Duration = Duration::from_secs(2);

impl Session {
    /// A session that has nothing yet: no lock, no route. It lives on `worker`, where its task has to run.
    #[must_use]
    pub fn new(
        claims: Claims,
        pod: PodId,
        connection: ConnectionId,
        limits: MailboxLimits,
        request_id: &str,
        worker: &Arc<Worker>,
    ) -> Self {
        Self {
            key: claims.session_key(),
            owner: LockOwner::new(pod, connection.clone()),
            connection,
            claims,
            request_id: request_id.into(),
            mailbox: Mailbox::new(limits),
            asked: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            to_move: AtomicBool::new(false),
            can_move: false,
            aborted: AtomicBool::new(false),
            task: AtomicWaker::new(),
            worker: Arc::clone(worker),
            reason: OnceLock::new(),
            chat: Mutex::new(None),
            rare: Mutex::new(Rare::new()),
        }
    }

    /// The same of a client that can move: it opens a second socket when it is asked.
    #[must_use]
    pub fn that_can_move(mut self, can_move: bool) -> Self {
        self.can_move = can_move;
        self
    }

    /// What is exclusive: at most one socket of the fleet has it.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// User or admin, as the token says.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        self.key.kind()
    }

    /// The socket of this session: its id is drawn anew for each connect.
    #[must_use]
    pub fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    /// What stands in the lock while it is ours.
    #[must_use]
    pub fn owner(&self) -> &LockOwner {
        &self.owner
    }

    /// What the token said, checked; it does not change while the socket is open.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What every line about the session carries; see [`session_line`].
    pub(crate) fn who(&self) -> Who<'_> {
        let (pod, request, kind) = (self.owner.pod.as_str(), &*self.request_id, self.kind().as_str());
        match &self.claims {
            Claims::User(user) => Who {
                pod,
                request,
                kind,
                company: user.company.as_str(),
                agent: user.agent.as_str(),
                user: Some(user.user.as_str()),
                admin: None,
            },
            Claims::Admin(admin) => Who {
                pod,
                request,
                kind,
                company: admin.company.as_str(),
                agent: admin.agent.as_str(),
                user: None,
                admin: Some(admin.admin.as_str()),
            },
        }
    }

    /// Puts an item in the mailbox and wakes the session's task. Never waits.
    pub fn put(&self, item: Item) -> Push {
        let pushed = self.mailbox.push(item);
        if matches!(pushed, Push::Taken { .. }) {
            self.wake();
        }
        pushed
    }

    /// [Prefetches](prefetch) what [`Session::put`] and the task that it wakes will look at: for many sessions before the first
    /// put.
    pub(crate) fn prefetch(&self) {
        prefetch((self.is_aborted(), self.mailbox.is_sound()));
    }

    /// Has the task woken when something is put in the mailbox or the session is ended. For one task at a time; look for both
    /// after this call.
    pub fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    fn wake(&self) {
        if let Some(waker) = self.task.take() {
            self.worker.wake(waker);
        }
    }

    /// The worker on whose thread the session lives as long as it does.
    #[must_use]
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// What waits for the socket.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Notes that the lock is being asked for: whatever the answer, the way out must give it back.
    pub(crate) fn set_lock_asked(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// May the lock be ours? True also when an answer was lost.
    #[must_use]
    pub(crate) fn may_hold_lock(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Notes that the lock was taken: from now on it is renewed. It was asked for at `asked`, for `ttl`.
    pub(crate) fn set_locked(&self, asked: Instant, ttl: Duration) {
        self.confirm_lock(asked, ttl);
        self.locked.store(true, Ordering::Release);
    }

    /// Notes that the lock is ours, as asked at `asked`, for `ttl`: an answer that comes late confirms nothing that is past.
    pub(crate) fn confirm_lock(&self, asked: Instant, ttl: Duration) {
        let until = asked + ttl.saturating_sub(CONFIRMATION_MARGIN.min(ttl / 4));
        let mut rare = self.rare();
        rare.confirmed_until = rare.confirmed_until.max(Some(until));
    }

    /// Until when the lock is ours for certain, with time left to say goodbye. `None` before it is taken.
    #[must_use]
    pub(crate) fn lock_confirmed_until(&self) -> Option<Instant> {
        self.rare().confirmed_until
    }

    /// May the lock run out within moments, or have run out?
    #[must_use]
    pub(crate) fn is_lock_unconfirmed(&self, now: Instant) -> bool {
        self.lock_confirmed_until().is_some_and(|until| until <= now)
    }

    /// Notes that the session is being taken from an owner. An old pod's, which names no socket, may be that of any.
    pub(crate) fn add_predecessor(&self, owner: &LockOwner) {
        if owner.connection.is_none() {
            return;
        }
        self.rare().add_predecessor(owner);
    }

    /// Was the session taken from this owner, which so is older?
    #[must_use]
    pub(crate) fn took_over_from(&self, owner: &LockOwner) -> bool {
        self.rare().took_over_from(owner)
    }

    /// Asks the client to open a second socket within this time, while this one still serves. False if it can't, has no socket
    /// yet, or was asked before.
    pub(crate) fn ask_to_move(&self, reason: MoveReason, within: Duration) -> bool {
        let may = self.can_move && self.is_locked() && self.close_reason().is_none();
        let mut rare = self.rare();
        if !may || rare.moving.is_some() {
            return false;
        }
        rare.moving = Some(Box::new(Moving { reason, asked: Instant::now(), within }));
        drop(rare);
        self.to_move.store(true, Ordering::Release);
        self.wake();
        true
    }

    /// Can its client move?
    #[must_use]
    pub(crate) fn can_move(&self) -> bool {
        self.can_move
    }

    /// Notes that its client moved here from another socket.
    pub(crate) fn set_moved(&self) {
        self.rare().moved_at = Some(Instant::now());
    }

    /// May its client be asked to move for no need of its own? Not if it was asked before, or has come by a move lately.
    #[must_use]
    pub(crate) fn may_move(&self) -> bool {
        self.can_move && self.is_locked() && self.rare().may_move()
    }

    /// What the client was asked, if it was.
    #[must_use]
    pub(crate) fn moving(&self) -> Option<Moving> {
        self.rare().moving.as_deref().copied()
    }

    /// What the client is to be asked now. For the socket's task; once.
    pub(crate) fn take_move(&self) -> Option<Moving> {
        if !self.to_move.load(Ordering::Acquire) {
            return None;
        }
        self.to_move.store(false, Ordering::Release);
        self.moving()
    }

    fn rare(&self) -> MutexGuard<'_, Rare> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Was the lock taken?
    #[must_use]
    pub(crate) fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Acquire)
    }

    /// Ends the session. The first reason counts; the socket's task says goodbye with it.
    pub fn close(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
        self.wake();
    }

    /// Ends the session's task at once, without a word to the client: the pod is at its end.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.wake();
    }

    /// Was it aborted?
    #[must_use]
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Why the session was ended, if it was.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.reason.get().copied()
    }

    /// Waits until the session is ended by somebody else than its client. Cancel-safe; for the one task that has the session.
    pub async fn closed(&self) -> CloseReason {
        poll_fn(|cx| {
            self.register(cx.waker());
            self.close_reason().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The chat that is selected, and its route.
    #[must_use]
    pub fn chat(&self) -> Option<ChatId> {
        self.chat.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the selected chat.
    pub(crate) fn set_chat(&self, chat: Option<ChatId>) {
        *self.chat.lock().unwrap_or_else(PoisonError::into_inner) = chat;
    }

    /// The route of a chat of this session; admins have none.
    #[must_use]
    pub(crate) fn chat_route(&self, chat: &ChatId) -> Option<RouteKey> {
        match &self.claims {
            Claims::User(c) => {
                Some(RouteKey::Messages { company: c.company.clone(), agent: c.agent.clone(), chat: chat.clone() })
            }
            Claims::Admin(_) => None,
        }
    }

    /// The routes that it is on, or will be.
    #[must_use]
    pub(crate) fn routes(&self) -> Vec<RouteKey> {
        let mut routes = vec![self.claims.base_route()];
        routes.extend(self.chat().and_then(|chat| self.chat_route(&chat)));
        routes
    }

    /// Notes that the client did something, for the adaptive TTL of the lock.
    pub(crate) fn touch(&self) {
        self.rare().active_at = Instant::now();
    }

    /// Notes how many bytes are held of a message that is not whole, and has them count there.
    pub(crate) fn set_inbound(&self, bytes: usize, memory: &Arc<Memory>) {
        self.rare().set_inbound(bytes, memory);
    }

    /// How many, and since when without a break.
    pub(crate) fn inbound(&self) -> Option<(usize, Instant)> {
        self.rare().inbound()
    }

    /// Has the session's task look again at what waits.
    pub(crate) fn stir(&self) {
        self.wake();
    }

    /// How long the client has done nothing.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.rare().active_at.elapsed()
    }
}
