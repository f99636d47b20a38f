//! The values of labels: closed sets of words. Where the domain or the readiness has such a set already, that is the label's.
//!
//! A metric is declared with a set and counted with a member of it, so no value is counted that has no series.

use daisi_ws_domain::{resume::NotResumed, words};

/// The words of a set, as a metric is declared with them.
macro_rules! values {
    ($set:ty) => {{
        const WORDS: [&str; <$set>::ALL.len()] = {
            let (mut words, mut place) = ([""; <$set>::ALL.len()], 0);
            while place < words.len() {
                words[place] = <$set>::ALL[place].as_str();
                place += 1;
            }
            words
        };
        &WORDS
    }};
}
pub(super) use values;

words! {
    /// Whose token is shown: an agent's, which is bound to a company, or an administrator's.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Login {
        Company = "company",
        Admin = "admin",
    }
}

words! {
    /// Why somebody may not come in.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum AuthFailure {
        ApiKey = "api_key",
        MintKey = "mint_key",
        Missing = "missing",
        Malformed = "malformed",
        WrongKey = "wrong_key",
        Expired = "expired",
        BeyondRestriction = "beyond_restriction",
        BadClaims = "bad_claims",
        TooLongLived = "too_long_lived",
        OtherPath = "other_path",
    }
}

words! {
    /// Which rate was passed before the upgrade.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Limit {
        Session = "session",
        Address = "address",
        Company = "company",
        FailedConnects = "failed_connects",
        FailedMints = "failed_mints",
    }
}

words! {
    /// Where HTTP is taken.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Listener {
        Http = "http",
        Probe = "probe",
    }
}

words! {
    /// Why a connection that says nothing was ended for a newer one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum PendingEnded {
        Share = "share",
        Full = "full",
        Exhausted = "exhausted",
    }
}

words! {
    /// Which way bytes went.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Direction {
        In = "in",
        Out = "out",
    }
}

words! {
    /// What became of a client's message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum ClientMessage {
        Accepted = "accepted",
        Refused = "refused",
    }
}

words! {
    /// Why an event that waited for a socket was not written.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Dropped {
        BufferFull = "buffer_full",
        Overflow = "overflow",
        Memory = "memory",
        Cut = "cut",
    }
}

words! {
    /// What became of an opened token that was to be left for pods of the predecessor.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum TokenShared {
        Shared = "shared",
        Error = "error",
    }
}

words! {
    /// Why a channel to a peer was closed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum PoolClosed {
        Idle = "idle",
        Unhealthy = "unhealthy",
        Replaced = "replaced",
        Forgotten = "forgotten",
        Shutdown = "shutdown",
    }
}

words! {
    /// A setting that takes less of other pods than a proof, by its key in `server`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Lenience {
        AllowUnauthenticated = "grpc_allow_unauthenticated",
        AcceptPrevious = "grpc_accept_previous",
    }
}

words! {
    /// What is known of who opened a connection for pods.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum PodConnection {
        Unproved = "stranger",
        Proved = "proved",
    }
}

words! {
    /// Why a connection for pods was cut.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum ConnectionCut {
        Unproved = "unproved",
        TooMuch = "too_much",
        TooOften = "too_often",
        Crowded = "crowded",
    }
}

words! {
    /// Why a call of a peer was refused.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum CallRefused {
        Unauthenticated = "unauthenticated",
        Replayed = "replayed",
        BadRequest = "bad_request",
        TooMany = "too_many",
        BadEvent = "bad_event",
        OtherPod = "other_pod",
    }
}

words! {
    /// What the renewal of a lock came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum LockRenewal {
        Renewed = "renewed",
        Restored = "restored",
        Lost = "lost",
        Disputed = "disputed",
        Error = "error",
    }
}

words! {
    /// What a kill order came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum KillHeard {
        Evicted = "evicted",
        NobodyHere = "nobody_here",
    }
}

words! {
    /// By which way the owner of a session was asked to let it go.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum EvictionWay {
        Here = "here",
        Peer = "peer",
        Bus = "bus",
    }
}

words! {
    /// What became of clients that were asked to move.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum MoveOutcome {
        Asked = "asked",
        Moved = "moved",
        Overdue = "overdue",
    }
}

words! {
    /// How a slow socket gave way to the memory budget.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Relief {
        Gap = "gap",
        Closed = "closed",
    }
}

words! {
    /// What a batch of route changes came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum RouteWrite {
        Ok = "ok",
        Error = "error",
    }
}

words! {
    /// How far a batch of look-ups could be trusted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum RouteLookup {
        Trusted = "trusted",
        Settling = "settling",
        Error = "error",
    }
}

words! {
    /// Why the pod leaves events to others.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum SteppedBack {
        Store = "store",
        Peers = "peers",
    }
}

words! {
    /// What is known of a peer.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum PeerState {
        Alive = "alive",
        Lapsed = "lapsed",
        Unknown = "unknown",
    }
}

words! {
    /// What a reload of the configuration came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Reloaded {
        Applied = "applied",
        Refused = "refused",
    }
}

words! {
    /// Was the session another socket's before?
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Takeover {
        Yes = "yes",
        No = "no",
    }
}

words! {
    /// What Redis was asked, as a command, script or pipeline.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum RedisCommand {
        AcquireLock = "acquire_lock",
        ReleaseLocks = "release_locks",
        RenewLocks = "renew_locks",
        SaveChat = "save_chat",
        WriteRoutes = "write_routes",
        LookUpRoutes = "look_up_routes",
        ResolvePods = "resolve_pods",
        AnnouncePod = "announce_pod",
        ReadPods = "read_pods",
        RetirePod = "retire_pod",
        Leave = "leave",
        PublishKill = "publish_kill",
        PutToken = "put_token",
        LookAtServer = "look_at_server",
        Ping = "ping",
    }
}

words! {
    /// What a key of the store is for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum KeyKind {
        /// Who owns a session.
        Lock = "lock",
        /// Which pods are on a route.
        Route = "route",
        /// What an opened token says.
        Token = "token",
        /// Who belongs to the fleet.
        Fleet = "fleet",
    }
}

words! {
    /// What memory is held for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum MemoryKind {
        /// Encoded events that wait for sockets or are being written, each once.
        Events = "events",
        /// The places of those events in long mailboxes.
        Mailboxes = "mailboxes",
        /// What clients have sent of messages that are not whole.
        Inbound = "inbound",
        /// What sockets have of their own for compression.
        Compression = "compression",
        /// Events taken from the stream and not settled, those that wait for a peer among them.
        Dispatch = "dispatch",
    }
}

words! {
    /// What became of a wish to resume.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum ResumeOutcome {
        Resumed = "resumed",
        StreamChanged = "stream_changed",
        TooOld = "too_old",
        TooMuch = "too_much",
        Busy = "busy",
        Unavailable = "unavailable",
        Malformed = "malformed",
    }
}

impl From<NotResumed> for ResumeOutcome {
    fn from(reason: NotResumed) -> Self {
        match reason {
            NotResumed::StreamChanged => Self::StreamChanged,
            NotResumed::TooOld => Self::TooOld,
            NotResumed::TooMuch => Self::TooMuch,
            NotResumed::Busy => Self::Busy,
            NotResumed::Unavailable => Self::Unavailable,
            NotResumed::Malformed => Self::Malformed,
        }
    }
}

words! {
    /// Why the stream is read again.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum ReplayCause {
        Resume = "resume",
        Gap = "gap",
    }
}

words! {
    /// How it was read: from what was read of the stream for many at once, or by its route alone.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub(crate) enum ReadBy {
        Window = "window",
        Route = "route",
    }
}

words! {
    /// Which way an event came that is timed: of one that is read again, the time says when its reader came.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum LivePath {
        Local = "local",
        Forwarded = "forwarded",
    }
}
