//! What the model knows in one state: the store, what is on its way, pods and sockets. All times are ticks that are left or have
//! passed, none is a date: so there are finitely many states, without a horizon.

/// Ticks that a lock lives.
pub const TTL: u8 = 4;
/// A lock counts as confirmed so many ticks less than it lives.
pub const MARGIN: u8 = 1;
/// Attempts before an owner that may live is replaced; six in the code.
pub const POLITE_ATTEMPTS: u8 = 2;
/// All attempts of a connect; twelve in the code.
pub const MAX_ATTEMPTS: u8 = 6;
/// Ticks without faults after which all must be in order; less than a lock lives, or its end would tidy up what nobody did.
pub const CALM: u8 = 3;
/// Sockets of the key.
pub const SOCKETS: usize = 3;
/// Pods.
pub const PODS: usize = 2;

/// A socket, by its place; they begin in this order.
pub type SocketId = u8;
/// A pod, by its place.
pub type PodId = u8;

/// Some of the sockets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sockets(pub u8);

impl Sockets {
    /// Is it among them?
    #[must_use]
    pub fn has(self, socket: SocketId) -> bool {
        self.0 & (1 << socket) != 0
    }

    /// Is none among them?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds one.
    pub fn add(&mut self, socket: SocketId) {
        self.0 |= 1 << socket;
    }

    /// Adds these.
    pub fn add_all(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Takes one out. Was it there?
    pub fn take(&mut self, socket: SocketId) -> bool {
        let was_there = self.has(socket);
        self.0 &= !(1 << socket);
        was_there
    }

    /// Each, ascending.
    pub fn iter(self) -> impl Iterator<Item = SocketId> {
        sockets().filter(move |socket| self.has(*socket))
    }
}

impl FromIterator<SocketId> for Sockets {
    fn from_iter<T: IntoIterator<Item = SocketId>>(sockets: T) -> Self {
        let mut set = Self::default();
        sockets.into_iter().for_each(|socket| set.add(socket));
        set
    }
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Every socket.
pub fn sockets() -> impl Iterator<Item = SocketId> {
    0..SOCKETS as SocketId
}

/// Every pod.
pub fn pods() -> impl Iterator<Item = PodId> {
    0..PODS as PodId
}

/// The lock in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Who stands in it.
    pub owner: SocketId,
    /// Ticks until it runs out.
    pub left: u8,
    /// It was written when the store went back in time, and by nobody since.
    pub is_restored: bool,
}

/// Why a socket is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Somebody took its session (4402), or it was outpaced while it connected.
    Replaced,
    /// Its lock was not confirmed in time (1013).
    Unconfirmed,
    /// Its client went.
    Left,
    /// The store did not answer while it connected (503).
    Refused,
}

/// How far a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stage {
    /// It has not begun.
    #[default]
    Absent,
    /// In its pod's hub, and wants the lock.
    Connecting,
    /// Admitted: it writes, if its policy lets it.
    Open,
    /// Out of the hub.
    Ended(End),
}

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerState {
    /// Its pod has the socket.
    Lives,
    /// Its pod does not have it, or counts as dead.
    Gone,
    /// Its pod can't be asked.
    Unknown,
}

/// The owner that a connecting socket wants to let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rival {
    /// Who.
    pub owner: SocketId,
    /// It does not live.
    pub is_gone: bool,
    /// Its pod has not answered yet whether it lives.
    pub is_asked_about: bool,
}

/// What the store says to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claimed {
    /// The lock is the socket's.
    Acquired,
    /// It is another's.
    Held(SocketId),
}

/// A claim of the lock that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The owner that may be replaced.
    pub seen: Option<SocketId>,
    /// That owner may live: it is to be killed.
    pub is_last_resort: bool,
    /// Ticks since it was asked for.
    pub age: u8,
    /// What the store has said, once it has.
    pub answer: Option<Claimed>,
}

/// How a living socket came to lose its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The store lost it, or went back in time.
    Store,
    /// By compare-and-set on it, by a socket that took it for gone or found no other way.
    Replaced,
    /// It ran out.
    RanOut,
    /// It was given back, by whomever.
    GivenBack,
    /// Somebody wrote over it unseen.
    Overwritten,
}

/// A claim that nobody waits for: the store may carry it out at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LateClaim {
    /// The owner that it may replace.
    pub seen: Option<SocketId>,
    /// Its socket was admitted, and lives on without an answer.
    pub is_take_back: bool,
}

/// To whom sockets gave way that were to have the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    /// To nobody.
    None,
    /// To elder ones that they never met.
    Strangers,
    /// To elder ones from which they took the session, or to nobody.
    Known,
}

/// A socket of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Socket {
    /// Where it is.
    pub pod: PodId,
    /// How far it is.
    pub stage: Stage,
    /// Claims made.
    pub attempts: u8,
    /// Whom it wants to let go.
    pub rival: Option<Rival>,
    /// Its claim, while waited for.
    pub claim: Option<Claim>,
    /// A claim that it does not wait for any more.
    pub late_claim: Option<LateClaim>,
    /// Ticks until its lock counts as unconfirmed.
    pub confirmed: u8,
    /// From whom it took the session.
    pub predecessors: Sockets,
    /// With whom, and for how many ticks, its lock is in dispute.
    pub dispute: Option<(SocketId, u8)>,
    /// Who was done connecting when it began: it must never give way to one of these.
    pub elders: Sockets,
    /// How it lost its lock, and for how many ticks it has been lost.
    pub loss: Option<(Loss, u8)>,
}

/// What a pod's renewal is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Renewal {
    /// Waits for its turn.
    #[default]
    Idle,
    /// The store is asked.
    Asked {
        /// Whose locks.
        batch: Sockets,
        /// Ticks since.
        age: u8,
        /// Who had the lock after it was carried out.
        holder: Option<SocketId>,
    },
    /// Some locks are another's, and it is not decided who is to have them.
    Disputed {
        /// Whose.
        lost: Sockets,
        /// Who has the lock.
        holder: SocketId,
    },
    /// A lock is being taken back.
    TakingBack {
        /// For whom.
        socket: SocketId,
        /// From whom.
        seen: SocketId,
        /// That one may live, and is to be killed.
        kills: bool,
        /// Ticks since it was asked for.
        age: u8,
        /// Was it taken?
        answer: Option<bool>,
        /// Who else is to take it back from that one.
        rest: Sockets,
    },
}

/// A pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pod {
    /// It stands still.
    pub is_frozen: bool,
    /// The store can't be reached from it.
    pub is_cut: bool,
    /// Its liveness key has run out.
    pub has_lapsed: bool,
    /// Its locks have to be renewed.
    pub is_due: bool,
    /// Its renewal.
    pub renewal: Renewal,
    /// A batch that nobody waits for; the store may carry it out until it answers the next one.
    pub late_renewal: Sockets,
    /// Sockets of renewals without an answer.
    pub unanswered: Sockets,
}

/// One state of the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The lock in the store.
    pub lock: Option<Lock>,
    /// The sockets.
    pub sockets: [Socket; SOCKETS],
    /// The pods.
    pub pods: [Pod; PODS],
    /// Victims of kills on their way.
    pub kills: Sockets,
    /// The same, of kills that come late.
    pub late_kills: Sockets,
    /// Pods on their way to which is a kill without a victim; only one mutant sends those.
    pub wild_kills: [bool; PODS],
    /// Whose releases are on their way to the store.
    pub releases: Sockets,
    /// Who stood in the lock once: a store that goes back in time may name them.
    pub held_once: Sockets,
    /// The pods do not reach each other.
    pub is_split: bool,
    /// Faults that may yet happen.
    pub faults_left: u8,
    /// Ticks since the last fault was over.
    pub calm: u8,
    /// The worst that a socket had to give way to.
    pub wrong: Wrong,
}

impl State {
    /// The first state: nobody is there.
    #[must_use]
    pub fn first(faults: u8) -> Self {
        Self {
            lock: None,
            sockets: Default::default(),
            pods: Default::default(),
            kills: Sockets::default(),
            late_kills: Sockets::default(),
            wild_kills: [false; PODS],
            releases: Sockets::default(),
            held_once: Sockets::default(),
            is_split: false,
            faults_left: faults,
            calm: 0,
            wrong: Wrong::None,
        }
    }

    /// A socket.
    #[must_use]
    pub fn socket(&self, socket: SocketId) -> &Socket {
        &self.sockets[usize::from(socket)]
    }

    /// A socket, to change.
    pub fn socket_mut(&mut self, socket: SocketId) -> &mut Socket {
        &mut self.sockets[usize::from(socket)]
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, pod: PodId) -> &Pod {
        &self.pods[usize::from(pod)]
    }

    /// A pod, to change.
    pub fn pod_mut(&mut self, pod: PodId) -> &mut Pod {
        &mut self.pods[usize::from(pod)]
    }

    /// The pod that a socket is on.
    #[must_use]
    pub fn pod_of(&self, socket: SocketId) -> &Pod {
        self.pod(self.socket(socket).pod)
    }

    /// Is it in its pod's hub?
    #[must_use]
    pub fn is_in_hub(&self, socket: SocketId) -> bool {
        matches!(self.socket(socket).stage, Stage::Connecting | Stage::Open)
    }

    /// Is it admitted?
    #[must_use]
    pub fn is_open(&self, socket: SocketId) -> bool {
        self.socket(socket).stage == Stage::Open
    }

    /// The open sockets of a pod.
    #[must_use]
    pub fn open_on(&self, pod: PodId) -> Sockets {
        sockets().filter(|socket| self.is_open(*socket) && self.socket(*socket).pod == pod).collect()
    }

    /// Has the store the lock for it?
    #[must_use]
    pub fn has_lock(&self, socket: SocketId) -> bool {
        self.lock.is_some_and(|lock| lock.owner == socket)
    }

    /// Has everything that was a fault come to its end, and can none come any more?
    #[must_use]
    pub fn is_free_of_faults(&self) -> bool {
        let is_well = |pod: &Pod| !pod.is_frozen && !pod.is_cut && pod.late_renewal.is_empty();
        let nothing_late = self.late_kills.is_empty() && self.sockets.iter().all(|socket| socket.late_claim.is_none());
        self.faults_left == 0 && !self.is_split && nothing_late && self.pods.iter().all(is_well)
    }
}
