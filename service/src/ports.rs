//! What the gateway needs from outside, as traits that each ship twice: for real and on memory.
//!
//! Methods speak domain types, never keys or channels. Unless a method says otherwise: it returns within a short time-out of its
//! own (an outage is an error, not a wait), dropping its future is safe and leaves the outcome unknown, and calls may run
//! concurrently.

mod errors;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use daisi_ws_domain::{
    event::{Event, StreamId},
    gap::Gap,
    ids::{ChatId, ConnectionId, PodId},
    peer::PodRecord,
    route::RouteKey,
    session::{Kill, LockOwner, SessionKey, SessionKind},
};

pub use crate::metrics::labels::KeyKind;
pub(crate) use errors::log_store_error;
pub use errors::{PeerError, SourceError, StoreError};

// ---- session locks
// ---------------------------------------------------------------------------------------------------------------

/// Outcome of trying to take a session's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquire {
    /// The lock is ours. Carries the chat that the session had selected before, if that is still remembered.
    Acquired {
        /// The chat to restore before `ready`.
        saved_chat: Option<ChatId>,
    },
    /// Somebody holds it: the owner as of this call.
    Held(LockOwner),
}

/// One lock to renew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRenewal {
    /// The session whose lock it is.
    pub key: SessionKey,
    /// The owner that must be in the lock.
    pub owner: LockOwner,
    /// The lock's new time to live.
    pub ttl: Duration,
    /// The selected chat, rewritten so that it outlives a store that came back empty.
    pub chat: Option<ChatId>,
    /// Time to live of the selected chat.
    pub chat_ttl: Duration,
}

/// Outcome of renewing one lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// It was ours and lives on.
    Renewed,
    /// It was gone (the store came back empty, or we were frozen past the TTL) and is ours again.
    Restored,
    /// It is another's; the socket must go.
    Lost(LockOwner),
}

/// Exclusive sessions. Every change is compare-and-set or compare-and-delete on the owner: nobody can renew, release or overwrite
/// another's lock.
///
/// Anyone who drops the future of an acquisition or replacement, or gets an error from it, has nothing: should it be carried out
/// all the same, the lock is given back after that.
#[async_trait]
pub trait SessionLocks: Send + Sync {
    /// Takes the lock if nobody holds it. One round trip, the saved chat included.
    async fn acquire(&self, key: &SessionKey, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError>;

    /// Takes the lock if nobody, or just `seen`, holds it. The last resort against an owner that does not let go.
    async fn replace(&self, key: &SessionKey, seen: &LockOwner, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError>;

    /// Lets the locks go that are still held by the given owners; the others are left alone. Returns how many were let go.
    async fn release(&self, locks: &[(SessionKey, LockOwner)]) -> Result<usize, StoreError>;

    /// Renews a batch in one pipeline; outcomes in the order given. A missing lock is taken again.
    async fn renew(&self, batch: &[LockRenewal]) -> Result<Vec<Renewal>, StoreError>;

    /// Remembers the chat that a session selected, for its next connect.
    async fn save_chat(&self, key: &SessionKey, chat: &ChatId, ttl: Duration) -> Result<(), StoreError>;
}

// ---- routes and membership
// -------------------------------------------------------------------------------------------------------

/// One change to the routes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// The pod has sockets on this route. Also extends the route's life.
    Add {
        /// The route that is changed.
        route: RouteKey,
        /// Its time to live from now.
        ttl: Duration,
    },
    /// The pod has no socket on this route any more.
    Remove {
        /// The route that is changed.
        route: RouteKey,
    },
}

/// A value that lives as long as the store's data does: when it is missing or another, routes may be missing too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch(pub String);

/// Which life of the store's data an answer is from, as one pod counts them. It goes up whenever the store may have lost what was
/// confirmed before: another server answers, or the same one was started again, perhaps from an old snapshot, or it threw keys
/// away. The epoch does not show that: it comes back with the other data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Incarnation(pub u64);

/// Answer to a look-up of routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// Of which incarnation the answer is.
    pub incarnation: Incarnation,
    /// The epoch as read in the same round trip; `None` if missing.
    pub epoch: Option<Epoch>,
    /// For each route asked, in order: the pods with sockets on it, but for the one that asks.
    pub pods: Vec<Vec<PodId>>,
    /// Places of the routes asked about which the store can't say anything, as what it has under that name is no route. Nearly
    /// always none.
    pub refused: Vec<usize>,
    /// Places, ascending, of the routes that could not be read: more pods stand there than any fleet has. Any peer may be on
    /// them.
    pub unread: Vec<usize>,
}

/// How a pod makes itself known.
#[derive(Debug, Clone, Copy)]
pub struct Announce<'a> {
    /// The pod that announces itself.
    pub me: &'a PodRecord,
    /// Life of its liveness key.
    pub ttl: Duration,
    /// The pods that it wants to hear of, members or not.
    pub known: &'a [PodId],
    /// A record under its own id that may be overwritten: of a process that is known to be gone.
    pub instead_of: Option<&'a PodRecord>,
}

impl<'a> Announce<'a> {
    /// An announcement that asks about nobody in particular and overwrites nothing.
    #[must_use]
    pub fn of(me: &'a PodRecord, ttl: Duration) -> Self {
        Self { me, ttl, known: &[], instead_of: None }
    }
}

/// Another process lives, or lived until lately, under this pod's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another pod has this id, at {}", record.address)]
pub struct IdTaken {
    /// The other process, as it announced itself.
    pub record: PodRecord,
    /// When its liveness key runs out, unless it is renewed.
    pub expires_in: Duration,
}

/// Why a pod is not announced.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AnnounceError {
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its id is another's; nothing was changed.
    #[error(transparent)]
    Taken(#[from] IdTaken),
}

/// What a pod learns when it announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Of which incarnation it is.
    pub incarnation: Incarnation,
    /// Was this pod there all the time since it announced itself before? False the first time, and after it could not for longer
    /// than its TTL.
    pub was_present: bool,
    /// How often this pod was [retired](Routes::retire) or [passed over](Routes::pass_over). More than the last time: events may
    /// have gone past it. It is a count, so that an announcement whose answer was lost takes nothing away.
    pub retirements: u64,
    /// The epoch now; one was made if it was missing.
    pub epoch: Epoch,
    /// Was the epoch missing, and made by this very call?
    pub epoch_created: bool,
    /// Every pod with a liveness key, this one included.
    pub pods: Vec<PodRecord>,
    /// Members without a liveness key: dead, frozen or cut off.
    pub lapsed: Vec<PodId>,
    /// Of the pods asked about: those that have [left](Routes::leave).
    pub left: Vec<PodId>,
    /// How many members there are. More than [`MAX_PODS`]: only some of them were read, and all that were asked about.
    pub members: usize,
}

/// The most pods that a fleet has. Whatever else stands in the store, no more are read, remembered or asked in one go.
pub const MAX_PODS: usize = 1024;

/// What the store knows of a pod that stands on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has a liveness key.
    Alive(PodRecord),
    /// It is a member without a liveness key, or its key can't be read: dead, frozen or cut off.
    Member,
    /// It was a member and is dead or has left; it was taken out of the routes in the same step.
    Gone,
    /// Nothing: it does not announce itself, as the predecessor's pods do not, or not yet.
    Unheard,
}

/// Routes, and which pods are there to have them.
#[async_trait]
pub trait Routes: Send + Sync {
    /// Applies the changes in order, on one ordered connection that no other call shares: a later call never overtakes an earlier
    /// one. Must not be called concurrently with itself. Returns the places of the changes that were refused, as what the store
    /// has under that name is no route: all others have been made. After an error each change may or may not have happened.
    async fn apply(&self, pod: &PodId, changes: &[RouteChange]) -> Result<Vec<usize>, StoreError>;

    /// Looks up in one round trip which pods but `me` are on each of these routes, and the epoch. A route whose change was
    /// confirmed before is seen. The work is bounded, whatever stands on the routes.
    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError>;

    /// What the store knows, as of this call, of pods that stand on these routes; in the order given. If `prune`, those that are
    /// gone are taken out of the routes named with them, in the same step; if not, they count as unheard of. With the incarnation
    /// that says so.
    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], prune: bool) -> Result<(Incarnation, Vec<Standing>), StoreError>;

    /// Renews the pod's liveness key and membership, and reads everybody's. A live record of another process under the same id is
    /// left alone.
    async fn announce(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError>;

    /// Takes pods without a liveness key out of the members, and counts that for each to find, should it live. For each, in
    /// order: was it without a key?
    async fn retire(&self, pods: &[PodId]) -> Result<Vec<bool>, StoreError>;

    /// Takes the pod itself out: it says goodbye, so that others know it to be gone and not merely silent. Another process under
    /// its id is left alone.
    async fn leave(&self, me: &PodRecord) -> Result<(), StoreError>;

    /// Has a pod that lives find, with its next announcement, that events went past it: for who can't tell it otherwise. It stays
    /// a member.
    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError>;
}

// ---- kill bus
// --------------------------------------------------------------------------------------------------------------------

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillSignal {
    /// Somebody wants a session: its victim, if it is here, has to go.
    Kill(Kill),
    /// Listening was interrupted and goes on: kills may have been missed, so the locks must be checked.
    Resubscribed,
}

/// Orders to let a session go, to every pod, at most once.
#[async_trait]
pub trait KillBus: Send + Sync {
    /// Sends to every pod that listens now, this one included.
    async fn publish(&self, kill: &Kill) -> Result<(), StoreError>;

    /// Starts to listen. The first signal is [`KillSignal::Resubscribed`], once the subscription is in force.
    async fn listen(&self) -> Box<dyn KillListener>;
}

/// One subscription to the kill bus.
#[async_trait]
pub trait KillListener: Send {
    /// Waits for the next signal, for ever if need be: it reconnects by itself, without end. Cancel-safe.
    async fn next(&mut self) -> KillSignal;
}

// ---- token cache
// -----------------------------------------------------------------------------------------------------------------

/// Where opened tokens are left, by digest, for pods of the predecessor, which look there before they open one. It is never read:
/// a token proves itself.
#[async_trait]
pub trait TokenCache: Send + Sync {
    /// Keeps what a token says for `ttl`, in place of what was there. `digest` is the lower-case hex under which they look.
    async fn put(&self, kind: SessionKind, digest: &str, entry: Bytes, ttl: Duration) -> Result<(), StoreError>;
}

// ---- event source
// ----------------------------------------------------------------------------------------------------------------

/// By what a pulled event is settled: opaque, meaningful to the source that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckToken(pub String);

/// One delivery of an event.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// How often it has been delivered, this time included.
    pub count: u64,
    /// When it can have come at the earliest, by this host's monotonic clock. From then on it has the consumer's ack wait; what
    /// is settled later than that is another pod's already.
    pub received_at: Instant,
    /// How old it was then, by the stream's own clock: no two hosts have to agree on the time.
    pub age: Duration,
    /// The stream will not deliver it again, whatever becomes of it: the consumer has a limit.
    pub is_last: bool,
}

impl Delivery {
    /// A delivery of this moment, of an event that was stored just now.
    #[must_use]
    pub fn now(count: u64) -> Self {
        Self { count, received_at: Instant::now(), age: Duration::ZERO, is_last: false }
    }

    /// How old the event is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age + self.received_at.elapsed()
    }

    /// The source was asked at `at` to leave it here for longer.
    pub(crate) fn extended(&mut self, at: Instant) {
        self.age += at.saturating_duration_since(self.received_at);
        self.received_at = self.received_at.max(at);
    }
}

/// An event as the stream has it: nothing about it is checked yet.
#[derive(Debug, Clone)]
pub struct RawEvent {
    /// Where it was published; not parsed yet.
    pub subject: String,
    /// Whatever bytes the publisher sent.
    pub payload: Bytes,
    /// The stream's time of creation: one made anew counts from 1 again.
    pub stream: StreamId,
    /// Its place in the stream.
    pub seq: u64,
    /// When it was stored, since the Unix epoch.
    pub stored_at: Duration,
    /// How it came.
    pub delivery: Delivery,
    /// The publisher's `X-Request-ID`, if it gave one.
    pub request_id: Option<String>,
    /// The publisher's W3C trace context, if it gave one.
    pub traceparent: Option<String>,
    /// Settles it.
    pub ack_token: AckToken,
}

/// What becomes of a pulled event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Every live target has it, or there is none.
    Ack,
    /// Deliver it again, to any pod, after this time.
    Retry(Duration),
    /// Never deliver it again.
    Terminate,
    /// Not yet: it has the ack wait again, from now on.
    Extend,
}

/// The limits of the consumer, as it really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// An event not settled within this time is delivered again.
    pub ack_wait: Duration,
    /// So many events may be unsettled over the whole fleet.
    pub max_ack_pending: usize,
}

/// Up to where the consumer's events are settled, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledUpTo {
    /// The stream whose consumer it is.
    pub stream: StreamId,
    /// The consumer's ack floor: no event up to this sequence comes again.
    pub seq: u64,
    /// When that was so, by the clock that time-stamps events.
    pub at: Duration,
}

/// How far the consumer is, and how far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLag {
    /// Events that it has not delivered yet.
    pub pending: u64,
    /// Events that it has delivered and that are not settled.
    pub ack_pending: usize,
    /// What is settled; `None` while the source can't tell of which stream.
    pub settled: Option<SettledUpTo>,
}

/// The durable consumer that all pods share: each event is taken by one pod at a time.
#[async_trait]
pub trait EventSource: Send + Sync {
    /// Waits until at least one event is there and takes up to `max` of what is ready. Only one call at a time. Dropping the
    /// future loses nothing: what was already fetched comes out of the next call, or is delivered again after the ack wait. An
    /// outage is an error after at most a few seconds; the next call goes on where the durable stood.
    async fn pull(&self, max: usize) -> Result<Vec<RawEvent>, SourceError>;

    /// Settles events. It may be late: an ack still counts then, which is right as every live target has the event; the others
    /// would take it from the pod to which it has been delivered again, so the caller sends none past the ack wait. What does not
    /// reach the stream is delivered again after the ack wait.
    async fn settle(&self, settlements: Vec<(AckToken, Settlement)>) -> Result<(), SourceError>;

    /// Gives back what was fetched and not yet pulled, for a pod that stops.
    async fn close(&self);

    /// Asks for no more events from now on, or for events again. What was fetched and not yet pulled is given back, and so is
    /// what still comes for earlier requests, so that other pods have it at once. Settling goes on. Waits for nothing.
    fn hold(&self, hold: bool);

    /// How far the consumer is, over all pods. Asks the stream; not for every event.
    async fn lag(&self) -> Result<SourceLag, SourceError>;

    /// Events that the consumer will never deliver although nobody settled them (it, or the stream, was made anew), found since
    /// the last call. Every pod finds them for itself.
    fn take_missed(&self) -> Option<Gap> {
        None
    }

    /// The consumer's limits, as last read from it.
    fn limits(&self) -> SourceLimits;

    /// Is the connection up?
    fn is_connected(&self) -> bool;
}

// ---- peers
// -----------------------------------------------------------------------------------------------------------------------

/// What the sessions on one route of a pod, or all of them, have missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteGap {
    /// The route; `None`: every session.
    pub route: Option<RouteKey>,
    /// What they missed, as their clients are told.
    pub gap: Gap,
}

/// What a pod says of an event that it was handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// Some socket there took it, now or before.
    Taken,
    /// No socket there wants it.
    Nobody,
    /// The pod drains, and a session that wants it was told to go and may not be on another pod yet: it has to be delivered again
    /// soon.
    Between,
}

/// The other pods. The implementation pools connections; breakers, retries and queues are the caller's.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Hands events over; for each, in order, what became of it. The caller bounds the time.
    async fn push(&self, to: &PodRecord, events: &[std::sync::Arc<Event>]) -> Result<Vec<Handed>, PeerError>;

    /// Tells sessions of the peer that they missed events, all of it in one call. After an error some may have been told, and
    /// telling again is safe. The caller bounds the time, and the number.
    async fn announce_gaps(&self, to: &PodRecord, gaps: &[RouteGap]) -> Result<(), PeerError>;

    /// Which of these sockets does just this pod hold, open or still connecting? In order. Bounded by a short time-out of its
    /// own.
    async fn holds(&self, to: &PodRecord, sockets: &[ConnectionId]) -> Result<Vec<bool>, PeerError>;

    /// Is anybody there who answers? Bounded by a short time-out of its own.
    async fn probe(&self, to: &PodRecord) -> Result<(), PeerError>;

    /// Makes this pod known to the peer and asks whom it knows: at most [`MAX_PODS`]. Bounded by a short time-out of its own.
    async fn introduce(&self, me: &PodRecord, to: &PodRecord) -> Result<Vec<PodRecord>, PeerError>;

    /// Does it say that it has room for sockets? Bounded by a short time-out of its own. A pod that is too old to know the
    /// question refuses it.
    async fn has_room(&self, _to: &PodRecord) -> Result<bool, PeerError> {
        Err(PeerError::refused("it is not asked for room"))
    }

    /// Does it say that it takes events and can bring them where they belong? Bounded by a short time-out of its own. A pod that
    /// is too old to know the question is well if it is there.
    async fn is_well(&self, to: &PodRecord) -> Result<bool, PeerError> {
        self.probe(to).await.map(|()| true)
    }

    /// Drops what is kept for a peer that is gone.
    fn forget(&self, pod: &PodId);
}

/// What a pod does when a peer calls it; served by the peers' adapter.
pub trait PeerService: Send + Sync {
    /// Puts the events in the mailboxes here that should have them. It sees no peers, so nothing can go in circles.
    fn deliver(&self, from: &PodId, events: Vec<Event>) -> Vec<Handed>;

    /// May connects come here that another pod has no room for?
    fn has_room(&self) -> bool {
        false
    }

    /// Does it take events, and can it bring them where they belong?
    fn is_well(&self) -> bool {
        true
    }

    /// Which of these sockets are here, in order.
    fn holds(&self, sockets: &[ConnectionId]) -> Vec<bool>;

    /// Tells the sessions on `route` (or all) about a gap; returns how many were told.
    fn gap(&self, from: &PodId, route: Option<&RouteKey>, gap: Gap) -> usize;

    /// Takes note of a pod that makes itself known; returns the pods that this one knows, and does not know to be dead.
    fn introduce(&self, newcomer: &PodRecord) -> Vec<PodRecord>;
}
