//! The model: what is checked under which settings, and how its parts make steps.

use clap::ValueEnum;
use stateright::Model;

use crate::{
    action::Action,
    mutant::Mutant,
    properties,
    state::{Claimed, End, Lock, Loss, MARGIN, OwnerState, PodId, SocketId, Sockets, Stage, State, TTL, Wrong, sockets},
    steps::{connect, renew, traffic, world},
};

/// What a socket does whose lock can't be renewed: `app.redis_outage_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// It stays.
    Available,
    /// It is closed before its lock can run out.
    Strict,
}

/// The protocol of the locks, in a world with so many faults.
#[derive(Debug, Clone, Copy)]
pub struct LockModel {
    /// What happens to unconfirmed sockets.
    pub policy: Policy,
    /// Sockets that begin, at most three.
    pub sockets: u8,
    /// Faults in a run, at most.
    pub faults: u8,
    /// The rule that is broken, if one is.
    pub mutant: Option<Mutant>,
}

impl LockModel {
    /// Is this rule broken?
    #[must_use]
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// May this socket write now?
    #[must_use]
    pub fn may_write(&self, state: &State, socket: SocketId) -> bool {
        let has_fence = self.policy == Policy::Strict && !self.is(Mutant::NoDeadlineFence) && !self.is(Mutant::NoDeadlines);
        let is_fenced = has_fence && state.socket(socket).confirmed == 0;
        state.is_open(socket) && !state.pod_of(socket).is_frozen && !is_fenced
    }

    /// Is this socket to be closed by its pod's timer now?
    #[must_use]
    pub fn is_overdue(&self, state: &State, socket: SocketId) -> bool {
        let is_unconfirmed = state.is_open(socket) && state.socket(socket).confirmed == 0;
        is_unconfirmed && self.policy == Policy::Strict && !self.is(Mutant::NoDeadlines) && !state.pod_of(socket).is_frozen
    }

    /// Would its pod find it in the hub?
    fn is_found(&self, state: &State, socket: SocketId) -> bool {
        state.is_open(socket) || (state.is_in_hub(socket) && !self.is(Mutant::NoPendingEntry))
    }

    /// What a pod may hear of an owner.
    pub(crate) fn heard_of(&self, state: &State, pod: PodId, owner: SocketId) -> Vec<OwnerState> {
        let at = state.pod_of(owner);
        let is_silent = state.socket(owner).pod != pod && (state.is_split || at.is_frozen);
        match (is_silent, self.is_found(state, owner)) {
            (true, _) if at.has_lapsed => vec![OwnerState::Unknown, OwnerState::Gone],
            (true, _) => vec![OwnerState::Unknown],
            (false, true) => vec![OwnerState::Lives],
            (false, false) => vec![OwnerState::Gone],
        }
    }

    /// Ticks for which a lock is confirmed that was asked for so long ago.
    pub(crate) fn confirmed_for(&self, age: u8) -> u8 {
        let age = if self.is(Mutant::ConfirmedFromAnswer) { 0 } else { age };
        (TTL - MARGIN).saturating_sub(age)
    }

    // ---- the store ----

    /// Takes the lock if nobody holds it, or the socket itself, or who was seen.
    pub(crate) fn claim(&self, state: &mut State, socket: SocketId, seen: Option<SocketId>) -> Claimed {
        if let Some(lock) = state.lock
            && lock.owner != socket
        {
            match seen {
                Some(seen) if seen == lock.owner => state.lose(Loss::Replaced),
                Some(_) if self.is(Mutant::NoCompareAndSet) => state.lose(Loss::Overwritten),
                _ => return Claimed::Held(lock.owner),
            }
        }
        state.set_lock(socket);
        Claimed::Acquired
    }

    /// Deletes the lock if the socket holds it.
    pub(crate) fn release(&self, state: &mut State, socket: SocketId) {
        if state.has_lock(socket) || self.is(Mutant::ReleaseWithoutCompare) {
            state.lose(Loss::GivenBack);
        }
    }

    /// Renews the lock if it is of one of these, or takes it for `first` if it is nobody's. Returns who has it then.
    pub(crate) fn renew(&self, state: &mut State, batch: Sockets, first: SocketId) -> SocketId {
        let holder = match state.lock {
            Some(lock) if batch.has(lock.owner) => lock.owner,
            Some(_) if self.is(Mutant::RenewalWithoutCompare) => {
                state.lose(Loss::Overwritten);
                first
            }
            Some(lock) => return lock.owner,
            None => first,
        };
        state.set_lock(holder);
        holder
    }

    /// Who of a batch may be the first that the store comes to, where that decides anything.
    pub(crate) fn firsts(&self, state: &State, batch: Sockets) -> Vec<SocketId> {
        match state.lock {
            Some(lock) if batch.has(lock.owner) => vec![lock.owner],
            Some(_) if !self.is(Mutant::RenewalWithoutCompare) => batch.iter().take(1).collect(),
            _ => batch.iter().collect(),
        }
    }

    // ---- ends and kills ----

    /// Closes a socket and takes it out of its hub; its lock is to be released.
    pub(crate) fn end(&self, state: &mut State, socket: SocketId, end: End) {
        if end == End::Replaced {
            state.wrong = state.wrong.max(state.wrong_done_to(socket));
        }
        let ended = state.socket_mut(socket);
        ended.stage = Stage::Ended(end);
        if ended.attempts > 0 {
            state.releases.add(socket);
        }
    }

    /// Closes the victim of a kill, if it is there.
    pub(crate) fn obey(&self, state: &mut State, victim: SocketId) {
        if self.is_found(state, victim) {
            self.end(state, victim, End::Replaced);
        }
    }

    /// Sends a kill from a pod: over the bus, or directly if the victim is there. A pod that is cut off hears none.
    pub(crate) fn kill(&self, state: &mut State, pod: PodId, victim: SocketId) {
        let to = state.socket(victim).pod;
        if to == pod {
            self.obey(state, victim);
        } else if !state.pod(to).is_cut {
            if self.is(Mutant::KillWithoutVictim) {
                state.wild_kills[usize::from(to)] = true;
            } else {
                state.kills.add(victim);
            }
        }
    }
}

impl State {
    /// Puts a socket in the lock, for all of a lock's life.
    pub(crate) fn set_lock(&mut self, owner: SocketId) {
        self.lock = Some(Lock { owner, left: TTL, is_restored: false });
        self.held_once.add(owner);
        self.socket_mut(owner).loss = None;
    }

    /// Empties the lock.
    pub(crate) fn lose(&mut self, loss: Loss) {
        if let Some(lock) = self.lock.take()
            && self.is_in_hub(lock.owner)
        {
            self.socket_mut(lock.owner).loss = Some((loss, 0));
        }
    }

    /// What it is for this socket to be replaced now. It is right if anybody began after it, or while it was connecting.
    fn wrong_done_to(&self, socket: SocketId) -> Wrong {
        let it = self.socket(socket);
        let others: Sockets = sockets().filter(|other| *other != socket && self.socket(*other).stage != Stage::Absent).collect();
        if others.iter().any(|other| !it.elders.has(other)) {
            Wrong::None
        } else if others.iter().any(|other| self.is_in_hub(other) && !it.predecessors.has(other)) {
            Wrong::Strangers
        } else {
            Wrong::Known
        }
    }

    /// Forgets what can't matter any more, so that states which differ in nothing else are one.
    fn tidy(&mut self) {
        let in_hub: Sockets = sockets().filter(|socket| self.is_in_hub(*socket)).collect();
        self.kills.0 &= in_hub.0;
        self.late_kills.0 &= in_hub.0;
        if self.faults_left == 0 {
            self.held_once = Sockets::default();
        }
        for pod in crate::state::pods() {
            let has_work = !self.open_on(pod).is_empty() || !self.pod(pod).unanswered.is_empty();
            let pod = self.pod_mut(pod);
            pod.is_due &= has_work && !pod.is_cut;
        }
        for socket in sockets() {
            let has_a_turn = self.pod_of(socket).renewal.is_about(socket);
            let socket = self.socket_mut(socket);
            match socket.stage {
                Stage::Absent | Stage::Connecting => {}
                Stage::Open => (socket.attempts, socket.rival) = (1, None),
                Stage::Ended(_) => {
                    socket.attempts = socket.attempts.min(1);
                    socket.rival = None;
                    socket.confirmed = 0;
                    socket.dispute = None;
                    socket.elders = Sockets::default();
                    socket.loss = None;
                    if !has_a_turn {
                        socket.predecessors = Sockets::default();
                    }
                }
            }
        }
    }
}

impl Model for LockModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.faults)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        connect::offer(self, state, actions);
        traffic::offer(self, state, actions);
        renew::offer(self, state, actions);
        world::offer(self, state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        connect::take(self, &mut next, action);
        traffic::take(self, &mut next, action);
        renew::take(self, &mut next, action);
        world::take(self, &mut next, action);
        next.tidy();
        Some(next)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        properties::all(self)
    }
}
