//! Pods: as `Renewer::run`, `Batches::renew`, `Disputes::settle` and `Leftovers`.

use crate::{
    action::Action,
    model::LockModel,
    mutant::Mutant,
    state::{Claimed, End, LateClaim, OwnerState, PodId, Renewal, SocketId, Sockets, State, TTL, pods, sockets},
};

impl Renewal {
    /// Does what comes of it concern this socket?
    pub(crate) fn is_about(self, socket: SocketId) -> bool {
        match self {
            Self::Idle => false,
            Self::Asked { batch: some, .. } | Self::Disputed { lost: some, .. } => some.has(socket),
            Self::TakingBack { socket: one, rest, .. } => one == socket || rest.has(socket),
        }
    }
}

pub(crate) fn offer(model: &LockModel, state: &State, actions: &mut Vec<Action>) {
    for pod in pods() {
        let it = state.pod(pod);
        let (runs, may_fail) = (!it.is_frozen, !it.is_frozen && state.faults_left > 0);
        if !it.late_renewal.is_empty() {
            let firsts = model.firsts(state, it.late_renewal).into_iter().map(Some);
            actions.extend(firsts.chain([None]).map(|first| Action::LateRenewal { pod, first }));
        }
        match it.renewal {
            Renewal::Idle if may_renew(model, state, pod) => actions.push(Action::Renew(pod)),
            Renewal::Idle => {}
            Renewal::Asked { batch, holder, .. } => {
                if holder.is_none() && is_store_through(state, pod) {
                    actions.extend(model.firsts(state, batch).into_iter().map(|first| Action::RenewalCarried { pod, first }));
                }
                if holder.is_some() && runs {
                    actions.push(Action::RenewalAnswered(pod));
                }
                if may_fail {
                    actions.push(Action::RenewalTimesOut(pod));
                }
            }
            Renewal::Disputed { holder, .. } if runs => {
                let heard = model.heard_of(state, pod, holder);
                actions.extend(heard.into_iter().map(|state| Action::Settle { pod, state }));
            }
            Renewal::Disputed { .. } => {}
            Renewal::TakingBack { socket, answer, .. } => {
                match answer {
                    None => actions.push(Action::TakeBackCarried(pod)),
                    Some(_) if runs => actions.push(Action::TakeBackAnswered(pod)),
                    Some(_) => {}
                }
                if may_fail && state.socket(socket).late_claim.is_none() {
                    actions.push(Action::TakeBackTimesOut(pod));
                }
            }
        }
    }
}

/// When the store answers a renewal, what it was asked before without an answer is done: the code relies on it.
fn is_store_through(state: &State, pod: PodId) -> bool {
    let is_late = |socket: SocketId| {
        let it = state.socket(socket);
        it.pod == pod && it.late_claim.is_some_and(|late| late.is_take_back)
    };
    state.pod(pod).late_renewal.is_empty() && !sockets().any(is_late)
}

/// Is it a pod's turn, with something to do?
pub(crate) fn may_renew(model: &LockModel, state: &State, pod: PodId) -> bool {
    let it = state.pod(pod);
    let has_work = !state.open_on(pod).is_empty()
        || (!it.unanswered.is_empty() && !model.is(Mutant::UnansweredNeedsCompany) && is_store_through(state, pod));
    it.renewal == Renewal::Idle && it.is_due && has_work && !it.is_frozen && !it.is_cut
}

pub(crate) fn take(model: &LockModel, state: &mut State, action: Action) {
    match action {
        Action::Renew(pod) => {
            let batch = state.open_on(pod);
            let it = state.pod_mut(pod);
            it.is_due = false;
            if batch.is_empty() {
                release_unanswered(state, pod);
            } else {
                it.renewal = Renewal::Asked { batch, age: 0, holder: None };
            }
        }
        Action::RenewalCarried { pod, first } => {
            if let Renewal::Asked { batch, age, .. } = state.pod(pod).renewal {
                let holder = Some(model.renew(state, batch, first));
                state.pod_mut(pod).renewal = Renewal::Asked { batch, age, holder };
            }
        }
        Action::RenewalAnswered(pod) => answered(model, state, pod),
        Action::RenewalTimesOut(pod) => {
            state.faults_left -= 1;
            fail(model, state, pod);
        }
        Action::LateRenewal { pod, first } => {
            let batch = std::mem::take(&mut state.pod_mut(pod).late_renewal);
            if let Some(first) = first {
                model.renew(state, batch, first);
            }
        }
        Action::Settle { pod, state: heard } => settle(model, state, pod, heard),
        Action::TakeBackCarried(pod) => {
            let Renewal::TakingBack { socket, seen, kills, age, rest, .. } = state.pod(pod).renewal else { return };
            let answer = Some(model.claim(state, socket, Some(seen)) == Claimed::Acquired);
            state.pod_mut(pod).renewal = Renewal::TakingBack { socket, seen, kills, age, answer, rest };
        }
        Action::TakeBackAnswered(pod) => taken_back(model, state, pod),
        Action::TakeBackTimesOut(pod) => {
            state.faults_left -= 1;
            fail(model, state, pod);
        }
        _ => {}
    }
}

fn answered(model: &LockModel, state: &mut State, pod: PodId) {
    let Renewal::Asked { batch, age, holder: Some(holder) } = state.pod(pod).renewal else { return };
    let mut lost = batch;
    if lost.take(holder) {
        if state.is_open(holder) {
            confirm(model, state, holder, age);
        } else if !model.is(Mutant::NoReleaseAfterRenewal) {
            state.releases.add(holder);
        }
    }
    release_unanswered(state, pod);
    state.pod_mut(pod).renewal = if lost.is_empty() { Renewal::Idle } else { Renewal::Disputed { lost, holder } };
}

fn confirm(model: &LockModel, state: &mut State, socket: SocketId, age: u8) {
    let it = state.socket_mut(socket);
    it.confirmed = it.confirmed.max(model.confirmed_for(age));
    it.dispute = None;
}

fn release_unanswered(state: &mut State, pod: PodId) {
    let unanswered = std::mem::take(&mut state.pod_mut(pod).unanswered);
    let ended: Sockets = unanswered.iter().filter(|socket| !state.is_in_hub(*socket)).collect();
    state.releases.add_all(ended);
}

fn settle(model: &LockModel, state: &mut State, pod: PodId, heard: OwnerState) {
    let Renewal::Disputed { lost, holder } = state.pod(pod).renewal else { return };
    let mut taken_back = Sockets::default();
    for socket in lost.iter() {
        let it = state.socket_mut(socket);
        let waited = it.dispute.filter(|(with, _)| *with == holder).map_or(0, |(_, waited)| waited);
        it.dispute = Some((holder, waited));
        let is_predecessor = it.predecessors.has(holder) && !model.is(Mutant::NoPredecessors);
        let takes_back = heard == OwnerState::Gone || is_predecessor || model.is(Mutant::NeverYields);
        if takes_back && !model.is(Mutant::AlwaysYields) {
            taken_back.add(socket);
        } else if (heard != OwnerState::Unknown || waited > TTL) && state.is_in_hub(socket) {
            model.end(state, socket, End::Replaced);
        }
    }
    let kills = heard != OwnerState::Gone;
    take_back_next(state, pod, taken_back, holder, kills);
}

/// Goes on with the next lock that is to be taken back. A pod that is cut off gets none.
fn take_back_next(state: &mut State, pod: PodId, mut rest: Sockets, seen: SocketId, kills: bool) {
    let it = state.pod_mut(pod);
    let next = rest.iter().next().filter(|_| !it.is_cut);
    it.renewal = next.map_or(Renewal::Idle, |socket| {
        rest.take(socket);
        Renewal::TakingBack { socket, seen, kills, age: 0, answer: None, rest }
    });
}

fn taken_back(model: &LockModel, state: &mut State, pod: PodId) {
    let Renewal::TakingBack { socket, seen, kills, age, answer: Some(is_taken), rest } = state.pod(pod).renewal else { return };
    if is_taken {
        confirm(model, state, socket, age);
        if kills {
            model.kill(state, pod, seen);
        }
        if !state.is_in_hub(socket) {
            state.releases.add(socket);
        }
    } else {
        // The dispute is open, and is looked at again soon.
        state.pod_mut(pod).is_due = true;
    }
    take_back_next(state, pod, rest, seen, kills);
}

/// What a pod has asked the store for is given up.
pub(crate) fn fail(model: &LockModel, state: &mut State, pod: PodId) {
    let it = state.pod_mut(pod);
    match it.renewal {
        Renewal::Idle | Renewal::Disputed { .. } => {}
        Renewal::Asked { batch, holder, .. } => {
            if holder.is_none() {
                it.late_renewal.add_all(batch);
            }
            if !model.is(Mutant::UnansweredIsForgotten) {
                it.unanswered.add_all(batch);
            }
            (it.renewal, it.is_due) = (Renewal::Idle, true);
        }
        Renewal::TakingBack { socket, seen, kills, answer, rest, .. } => {
            it.unanswered.add(socket);
            it.is_due = true;
            if answer.is_none() {
                state.socket_mut(socket).late_claim = Some(LateClaim { seen: Some(seen), is_take_back: true });
            } else if model.is(Mutant::TakeBackIsGivenBack) {
                state.releases.add(socket);
            }
            take_back_next(state, pod, rest, seen, kills);
        }
    }
}
