//! What a session has beside what events touch: when its client was heard, from whom it was taken, where it is to go.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{moving::MoveReason, session::LockOwner};
use tokio::time::Instant;

use super::memory::{Charge, Kind, Memory};

/// For so long after a client has moved, it is not asked again: it is not to go from pod to pod. Longer than a rollout and the
/// moves that follow it; but all sockets of a fleet that was restarted pod by pod have moved, and the last pod is empty then.
const MOVED_LATELY: Duration = Duration::from_mins(10);
/// So many of the owners that a session was taken from are remembered, the latest: nearly always there is one.
const MAX_PREDECESSORS: usize = 4;

/// What no event touches.
#[derive(Debug)]
pub(super) struct Rare {
    /// When the client did something last.
    pub(super) active_at: Instant,
    /// Until when the lock is its own for certain.
    pub(super) confirmed_until: Option<Instant>,
    /// The owners that it took its session from; most have none.
    predecessors: Box<[LockOwner]>,
    /// A message of the client's that is not whole; in a box, as most of the time there is none.
    inbound: Option<Box<Inbound>>,
    /// Since when its client is here, if it moved here from another socket.
    pub(super) moved_at: Option<Instant>,
    /// Its client was asked to move.
    pub(super) moving: Option<Box<Moving>>,
}

/// That a client was asked to move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moving {
    pub(crate) reason: MoveReason,
    /// When it was asked, and how long it has.
    pub(crate) asked: Instant,
    pub(crate) within: Duration,
}

/// A message that is not whole.
#[derive(Debug)]
struct Inbound {
    /// There has always been one.
    since: Instant,
    /// What is held of it.
    held: Charge,
}

impl Rare {
    /// Of a session that begins now.
    pub(super) fn new() -> Self {
        Self {
            active_at: Instant::now(),
            confirmed_until: None,
            predecessors: Box::default(),
            inbound: None,
            moved_at: None,
            moving: None,
        }
    }

    /// May its client be asked for no need of its own?
    pub(super) fn may_move(&self) -> bool {
        self.moving.is_none() && self.moved_at.is_none_or(|at| at.elapsed() >= MOVED_LATELY)
    }

    /// Notes that the session is being taken from an owner.
    pub(super) fn add_predecessor(&mut self, owner: &LockOwner) {
        let mut predecessors = std::mem::take(&mut self.predecessors).into_vec();
        if !predecessors.contains(owner) {
            if predecessors.len() >= MAX_PREDECESSORS {
                predecessors.remove(0);
            }
            predecessors.push(owner.clone());
        }
        self.predecessors = predecessors.into();
    }

    /// Was the session taken from this owner?
    pub(super) fn took_over_from(&self, owner: &LockOwner) -> bool {
        self.predecessors.contains(owner)
    }

    /// Notes how many bytes are held of a message that is not whole, and has them count there.
    pub(super) fn set_inbound(&mut self, bytes: usize, memory: &Arc<Memory>) {
        if bytes == 0 {
            self.inbound = None;
            return;
        }
        let none = || Box::new(Inbound { since: Instant::now(), held: memory.charge(Kind::Inbound, 0) });
        self.inbound.get_or_insert_with(none).held.set(bytes);
    }

    /// How many, and since when without a break.
    pub(super) fn inbound(&self) -> Option<(usize, Instant)> {
        self.inbound.as_ref().map(|inbound| (inbound.held.bytes(), inbound.since))
    }
}
