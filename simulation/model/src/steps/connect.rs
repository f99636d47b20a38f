//! Sockets: as `Connector::connect`, `Locker::lock` and the claims of the Redis adapter.

use crate::{
    action::Action,
    model::LockModel,
    mutant::Mutant,
    state::{
        Claim, Claimed, End, LateClaim, MAX_ATTEMPTS, OwnerState, POLITE_ATTEMPTS, PodId, Rival, SocketId, Sockets, Stage, State,
        pods, sockets,
    },
};

pub(crate) fn offer(model: &LockModel, state: &State, actions: &mut Vec<Action>) {
    if let Some(socket) = sockets().take(model.sockets.into()).find(|socket| state.socket(*socket).stage == Stage::Absent) {
        // Pods are alike until somebody is on one.
        let pods = pods().take(if socket == 0 { 1 } else { usize::MAX });
        let pods = pods.filter(|pod| !state.pod(*pod).is_frozen && !state.pod(*pod).is_cut);
        actions.extend(pods.map(|pod| Action::Begin { socket, pod }));
    }
    for socket in sockets() {
        let (it, runs) = (state.socket(socket), !state.pod_of(socket).is_frozen);
        if it.late_claim.is_some() {
            actions.extend([true, false].map(|is_carried| Action::LateClaim { socket, is_carried }));
        }
        match it.claim {
            Some(claim) if claim.answer.is_none() => actions.push(Action::ClaimCarried(socket)),
            Some(_) if runs => actions.push(Action::ClaimAnswered(socket)),
            _ => {}
        }
        if it.claim.is_some() && runs && state.faults_left > 0 {
            actions.push(Action::ClaimTimesOut(socket));
        }
        if runs && it.stage == Stage::Connecting && it.claim.is_none() {
            if let Some(rival) = it.rival.filter(|rival| rival.is_asked_about && !rival.is_gone) {
                let heard = model.heard_of(state, it.pod, rival.owner);
                let is_gone = |state: &OwnerState| *state == OwnerState::Gone;
                if heard.iter().any(is_gone) {
                    actions.push(Action::Ask { socket, is_gone: true });
                }
                if !heard.iter().all(is_gone) {
                    actions.push(Action::Ask { socket, is_gone: false });
                }
            }
            if may_claim(state, socket) {
                actions.push(Action::Claim(socket));
            }
        }
        if runs && state.is_in_hub(socket) && state.faults_left > 0 {
            actions.push(Action::Leave(socket));
        }
        if model.is_overdue(state, socket) {
            actions.push(Action::Deadline(socket));
        }
    }
}

/// The owner that the next claim may replace, and whether that is the last resort.
fn replaced(model: &LockModel, state: &State, socket: SocketId) -> Option<(SocketId, bool)> {
    let it = state.socket(socket);
    let is_impatient = it.attempts >= POLITE_ATTEMPTS && !model.is(Mutant::NoLastResort);
    it.rival.filter(|rival| rival.is_gone || is_impatient).map(|rival| (rival.owner, !rival.is_gone))
}

/// The polite attempts last so long that an owner which can has let go by then.
fn may_claim(state: &State, socket: SocketId) -> bool {
    let it = state.socket(socket);
    let Some(Rival { owner, is_gone: false, .. }) = it.rival.filter(|_| it.attempts >= POLITE_ATTEMPTS) else { return true };
    let at = state.pod_of(owner);
    let has_time = (at.is_frozen || !state.kills.has(owner)) && (at.is_frozen || at.is_cut || !state.releases.has(owner));
    has_time && !state.wild_kills[usize::from(state.socket(owner).pod)]
}

pub(crate) fn take(model: &LockModel, state: &mut State, action: Action) {
    match action {
        Action::Begin { socket, pod } => begin(state, socket, pod),
        Action::Claim(socket) => {
            let replaced = replaced(model, state, socket);
            let it = state.socket_mut(socket);
            it.attempts += 1;
            let (seen, is_last_resort) = (replaced.map(|(owner, _)| owner), replaced.is_some_and(|(_, is_last)| is_last));
            it.claim = Some(Claim { seen, is_last_resort, age: 0, answer: None });
        }
        Action::ClaimCarried(socket) => {
            if let Some(claim) = state.socket(socket).claim {
                let answer = model.claim(state, socket, claim.seen);
                state.socket_mut(socket).claim = Some(Claim { answer: Some(answer), ..claim });
            }
        }
        Action::ClaimAnswered(socket) => answered(model, state, socket),
        Action::ClaimTimesOut(socket) => {
            state.faults_left -= 1;
            give_up(model, state, socket, End::Refused);
        }
        Action::LateClaim { socket, is_carried } => late_claim(model, state, socket, is_carried),
        Action::Ask { socket, is_gone } => {
            if let Some(rival) = &mut state.socket_mut(socket).rival {
                (rival.is_asked_about, rival.is_gone) = (false, is_gone);
            }
        }
        Action::Leave(socket) => {
            state.faults_left -= 1;
            give_up(model, state, socket, End::Left);
        }
        Action::Deadline(socket) => model.end(state, socket, End::Unconfirmed),
        _ => {}
    }
}

fn begin(state: &mut State, socket: SocketId, pod: PodId) {
    let is_elder = |other: &SocketId| !matches!(state.socket(*other).stage, Stage::Absent | Stage::Connecting);
    let elders: Sockets = sockets().filter(is_elder).collect();
    let it = state.socket_mut(socket);
    (it.pod, it.stage, it.elders) = (pod, Stage::Connecting, elders);
    state.calm = 0;
}

fn answered(model: &LockModel, state: &mut State, socket: SocketId) {
    let it = state.socket_mut(socket);
    let Some(Claim { seen, is_last_resort, age, answer: Some(answer) }) = it.claim.take() else { return };
    let (pod, attempts) = (it.pod, it.attempts);
    match answer {
        Claimed::Acquired => {
            it.confirmed = model.confirmed_for(age);
            if it.stage == Stage::Connecting {
                it.stage = Stage::Open;
            }
            if let Some(owner) = seen.filter(|_| is_last_resort) {
                model.kill(state, pod, owner);
            }
        }
        Claimed::Held(owner) => {
            if it.rival.is_none_or(|rival| rival.owner != owner) {
                let is_here = state.socket(owner).pod == pod;
                let it = state.socket_mut(socket);
                it.predecessors.add(owner);
                it.rival = Some(Rival { owner, is_gone: is_here, is_asked_about: !is_here });
                model.kill(state, pod, owner);
            }
            if state.is_in_hub(socket) && attempts >= MAX_ATTEMPTS {
                model.end(state, socket, End::Replaced);
            }
        }
    }
    if !state.is_in_hub(socket) {
        // It was ended meanwhile, and gives back what it may have.
        state.releases.add(socket);
    }
}

/// Ends a socket; a claim that is under way, nobody waits for.
pub(crate) fn give_up(model: &LockModel, state: &mut State, socket: SocketId, end: End) {
    match state.socket_mut(socket).claim.take() {
        Some(Claim { answer: None, seen, .. }) => {
            state.socket_mut(socket).late_claim = Some(LateClaim { seen, is_take_back: false });
        }
        Some(_) if !model.is(Mutant::LateClaimIsKept) => state.releases.add(socket),
        _ => {}
    }
    if state.is_in_hub(socket) {
        model.end(state, socket, end);
    } else {
        state.releases.add(socket);
    }
}

/// On the connection of a claim that nobody waits for, its release follows.
fn late_claim(model: &LockModel, state: &mut State, socket: SocketId, is_carried: bool) {
    let Some(LateClaim { seen, is_take_back }) = state.socket_mut(socket).late_claim.take() else { return };
    if is_carried {
        model.claim(state, socket, seen);
    }
    let is_given_back = if is_take_back { model.is(Mutant::TakeBackIsGivenBack) } else { !model.is(Mutant::LateClaimIsKept) };
    if is_given_back {
        state.releases.add(socket);
    }
}
