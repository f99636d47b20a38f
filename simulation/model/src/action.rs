//! What can happen in the model, one step each, and how it is told.

use crate::state::{OwnerState, PodId, SocketId};

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A client connects.
    Begin {
        /// Its socket.
        socket: SocketId,
        /// The pod.
        pod: PodId,
    },
    /// A connecting socket asks the store for the lock.
    Claim(SocketId),
    /// The store carries a claim out.
    ClaimCarried(SocketId),
    /// The answer to a claim arrives.
    ClaimAnswered(SocketId),
    /// Fault: a claim is given up; the store may carry it out yet.
    ClaimTimesOut(SocketId),
    /// What becomes of a claim that nobody waits for.
    LateClaim {
        /// Whose.
        socket: SocketId,
        /// Is it carried out?
        is_carried: bool,
    },
    /// A connecting socket hears whether its rival lives.
    Ask {
        /// Who asked.
        socket: SocketId,
        /// Does the rival count as gone?
        is_gone: bool,
    },
    /// Fault: a client goes.
    Leave(SocketId),
    /// A socket is closed as its lock is not confirmed any more.
    Deadline(SocketId),
    /// A kill reaches its victim's pod.
    KillHeard(SocketId),
    /// Fault: a kill reaches nobody.
    KillLost(SocketId),
    /// Fault: a kill will come, but nobody knows when.
    KillDelayed(SocketId),
    /// A kill without a victim reaches a pod.
    WildKillHeard(PodId),
    /// The store carries the release of a socket's lock out.
    Released(SocketId),
    /// A pod asks the store to renew its locks.
    Renew(PodId),
    /// The store carries a renewal out.
    RenewalCarried {
        /// Whose renewal.
        pod: PodId,
        /// Of its batch, the one that comes first.
        first: SocketId,
    },
    /// The answer to a renewal arrives.
    RenewalAnswered(PodId),
    /// Fault: a renewal is given up; the store may carry it out yet.
    RenewalTimesOut(PodId),
    /// What becomes of a renewal that nobody waits for.
    LateRenewal {
        /// Whose renewal.
        pod: PodId,
        /// It is carried out, and of its batch this one comes first.
        first: Option<SocketId>,
    },
    /// A pod decides about locks in other hands.
    Settle {
        /// The pod.
        pod: PodId,
        /// What it heard of the holder.
        state: OwnerState,
    },
    /// The store carries a take-back out.
    TakeBackCarried(PodId),
    /// The answer to a take-back arrives.
    TakeBackAnswered(PodId),
    /// Fault: a take-back is given up; the store may carry it out yet.
    TakeBackTimesOut(PodId),
    /// Fault: a pod stands still.
    Freeze(PodId),
    /// It goes on.
    Thaw(PodId),
    /// Fault: a pod can't reach the store.
    Cut(PodId),
    /// It can again.
    Heal(PodId),
    /// Fault: the pods can't reach each other.
    Split,
    /// They can again.
    Mend,
    /// Fault: the store comes back empty.
    Flush,
    /// Fault: the store goes back in time; this socket stands in the lock.
    Restore(SocketId),
    /// Time passes.
    Tick,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use Action as A;
        let pod = |pod: &PodId| if *pod == 0 { "pod A" } else { "pod B" };
        match self {
            A::Begin { socket, pod: on } => write!(f, "socket {socket} connects to {}", pod(on)),
            A::Claim(socket) => write!(f, "socket {socket} claims the lock"),
            A::ClaimCarried(socket) => write!(f, "the store carries out the claim of socket {socket}"),
            A::ClaimAnswered(socket) => write!(f, "socket {socket} has the answer to its claim"),
            A::ClaimTimesOut(socket) => write!(f, "FAULT: the claim of socket {socket} times out"),
            A::LateClaim { socket, is_carried: true } => write!(f, "the store carries out the late claim of socket {socket}"),
            A::LateClaim { socket, is_carried: false } => write!(f, "the late claim of socket {socket} is lost"),
            A::Ask { socket, is_gone: true } => write!(f, "socket {socket} hears that its rival is gone"),
            A::Ask { socket, is_gone: false } => write!(f, "socket {socket} does not hear that its rival is gone"),
            A::Leave(socket) => write!(f, "FAULT: the client of socket {socket} goes"),
            A::Deadline(socket) => write!(f, "socket {socket} is closed at the deadline of its lock"),
            A::KillHeard(socket) => write!(f, "the kill of socket {socket} is heard"),
            A::KillLost(socket) => write!(f, "FAULT: the kill of socket {socket} is lost"),
            A::KillDelayed(socket) => write!(f, "FAULT: the kill of socket {socket} is held up"),
            A::WildKillHeard(on) => write!(f, "a kill without a victim is heard on {}", pod(on)),
            A::Released(socket) => write!(f, "the store carries out the release of socket {socket}"),
            A::Renew(of) => write!(f, "{} renews its locks", pod(of)),
            A::RenewalCarried { pod: of, first } => {
                write!(f, "the store carries out the renewal of {}, socket {first} first", pod(of))
            }
            A::RenewalAnswered(of) => write!(f, "{} has the answer to its renewal", pod(of)),
            A::RenewalTimesOut(of) => write!(f, "FAULT: the renewal of {} times out", pod(of)),
            A::LateRenewal { pod: of, first: Some(first) } => {
                write!(f, "the store carries out the late renewal of {}, socket {first} first", pod(of))
            }
            A::LateRenewal { pod: of, first: None } => write!(f, "the late renewal of {} is lost", pod(of)),
            A::Settle { pod: of, state } => write!(
                f,
                "{} settles its dispute: the holder {}",
                pod(of),
                match state {
                    OwnerState::Lives => "lives",
                    OwnerState::Gone => "is gone",
                    OwnerState::Unknown => "is not to be asked",
                }
            ),
            A::TakeBackCarried(of) => write!(f, "the store carries out the take-back of {}", pod(of)),
            A::TakeBackAnswered(of) => write!(f, "{} has the answer to its take-back", pod(of)),
            A::TakeBackTimesOut(of) => write!(f, "FAULT: the take-back of {} times out", pod(of)),
            A::Freeze(of) => write!(f, "FAULT: {} freezes", pod(of)),
            A::Thaw(of) => write!(f, "{} thaws", pod(of)),
            A::Cut(of) => write!(f, "FAULT: {} is cut off from the store", pod(of)),
            A::Heal(of) => write!(f, "{} reaches the store again", pod(of)),
            A::Split => write!(f, "FAULT: the pods do not reach each other"),
            A::Mend => write!(f, "the pods reach each other again"),
            A::Flush => write!(f, "FAULT: the store is empty"),
            A::Restore(socket) => write!(f, "FAULT: the store goes back in time, to a lock of socket {socket}"),
            A::Tick => write!(f, "a tick passes"),
        }
    }
}
