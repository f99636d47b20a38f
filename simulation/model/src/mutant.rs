//! Deliberate mistakes: each breaks one rule of the protocol, and the checker has to find out.

use clap::ValueEnum;

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Mutant {
    /// A lock is replaced whoever holds it, not just the owner seen.
    NoCompareAndSet,
    /// A release deletes the lock, whoever holds it.
    ReleaseWithoutCompare,
    /// A renewal takes the lock, whoever holds it.
    RenewalWithoutCompare,
    /// A kill names no victim: it closes all of the session's sockets on the pods it reaches, but for the newcomer's pod.
    KillWithoutVictim,
    /// A socket enters the hub when it has its lock: kills do not find it before.
    NoPendingEntry,
    /// A socket does not look at its lock's deadline before it writes; the timer of the pod is all there is.
    NoDeadlineFence,
    /// Neither the fence nor the timer: sockets outlive their locks.
    NoDeadlines,
    /// A lock counts as confirmed from when the answer came, not from when it was asked for.
    ConfirmedFromAnswer,
    /// Whoever finds its lock in other hands closes its socket.
    AlwaysYields,
    /// A socket does not remember from whom it took the session.
    NoPredecessors,
    /// Whoever finds its lock in other hands takes it back.
    NeverYields,
    /// An owner that may live is never replaced.
    NoLastResort,
    /// A claim that nobody waits for is not given back.
    LateClaimIsKept,
    /// A renewal that was carried out after its session had ended is not released again.
    NoReleaseAfterRenewal,
    /// Sockets of renewals without an answer are not remembered.
    UnansweredIsForgotten,
    /// Sockets of renewals without an answer are looked at with an answer only, of which a pod without sockets gets none.
    UnansweredNeedsCompany,
    /// A take-back without an answer is given back like a claim of a connect, although its socket lives on.
    TakeBackIsGivenBack,
}

impl Mutant {
    /// What it breaks, in one line.
    #[must_use]
    pub fn says(self) -> String {
        self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
