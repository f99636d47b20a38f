//! Which pods have sockets on which route, and which pods there are.

use std::time::Duration;

use async_trait::async_trait;
use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};

use super::errors::StoreError;

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

/// Which life of the store's data an answer is from, as one pod counts them. It goes up whenever the store may have lost what
/// was confirmed before: another server answers, or the same one was started again, perhaps from an old snapshot, or it threw
/// keys away. The epoch does not show that: it comes back with the other data.
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
    /// have gone past it, by [`PASSED_OVER`] or more: before that, too. It is a count, so that an announcement whose answer was
    /// lost takes nothing away.
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
    pub left: Vec<Goodbye>,
    /// How many members there are. More than [`MAX_PODS`]: only some of them were read, and all that were asked about.
    pub members: usize,
}

/// What a process said when it left. A store that went back may still have what one said before the pod was started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// Of this pod.
    pub pod: PodId,
    /// When the process began that said it.
    pub started_at: Duration,
}

/// The most pods that a fleet has. Whatever else stands in the store, no more are read, remembered or asked in one go.
pub const MAX_PODS: usize = 1024;

/// By so much the count of a pod's retirements goes up when it is [passed over](Routes::pass_over), where one retirement counts
/// for one: what was given up for it earlier is not in the stream behind the place that its sessions were told.
pub const PASSED_OVER: u64 = 1 << 20;

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
    /// Applies the changes in order, on one ordered connection that no other call shares: a later call never overtakes an
    /// earlier one. Must not be called concurrently with itself. Returns the places of the changes that were refused, as what
    /// the store has under that name is no route: all others have been made. After an error each change may or may not have
    /// happened.
    async fn apply(&self, pod: &PodId, changes: &[RouteChange]) -> Result<Vec<usize>, StoreError>;

    /// Looks up in one round trip which pods but `me` are on each of these routes, and the epoch. A route whose change was
    /// confirmed before is seen. The work is bounded, whatever stands on the routes.
    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError>;

    /// What the store knows, as of this call, of pods that stand on these routes; in the order given. If `prune`, those that are
    /// gone are taken out of the routes named with them, in the same step; if not, they count as unheard of. With the
    /// incarnation that says so.
    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], prune: bool) -> Result<(Incarnation, Vec<Standing>), StoreError>;

    /// Renews the pod's liveness key and membership, and reads everybody's. A live record of another process under the same id
    /// is left alone.
    async fn announce(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError>;

    /// Takes pods without a liveness key out of the members, and counts that for each to find, should it live. For each, in
    /// order: was it without a key?
    async fn retire(&self, pods: &[PodId]) -> Result<Vec<bool>, StoreError>;

    /// Takes the pod itself out: it says goodbye, so that others know it to be gone and not merely silent. Another process under
    /// its id is left alone.
    async fn leave(&self, me: &PodRecord) -> Result<(), StoreError>;

    /// Has a pod that lives find, with its next announcement, that events went past it: for who can't tell it otherwise. It
    /// stays a member.
    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError>;
}
