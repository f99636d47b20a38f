//! The world: faults of pods, links and the store, and time.

use super::{connect::give_up, renew};
use crate::{
    action::Action,
    model::LockModel,
    state::{CALM, End, Lock, Loss, PodId, Renewal, Stage, State, TTL, pods, sockets},
};

pub(crate) fn offer(model: &LockModel, state: &State, actions: &mut Vec<Action>) {
    let has_faults = state.faults_left > 0;
    for pod in pods() {
        let it = state.pod(pod);
        if it.is_frozen {
            actions.push(Action::Thaw(pod));
        } else if has_faults {
            actions.push(Action::Freeze(pod));
        }
        if it.is_cut {
            actions.push(Action::Heal(pod));
        } else if has_faults && !it.is_frozen {
            actions.push(Action::Cut(pod));
        }
    }
    if state.is_split {
        actions.push(Action::Mend);
    } else if has_faults {
        actions.push(Action::Split);
    }
    if has_faults {
        if state.lock.is_some() {
            actions.push(Action::Flush);
        }
        actions.extend(state.held_once.iter().filter(|socket| !state.has_lock(*socket)).map(Action::Restore));
    }
    if may_tick(model, state) {
        actions.push(Action::Tick);
    }
}

/// A tick is long: in it, whatever runs does what it has to do, and what is on its way in time arrives.
fn may_tick(model: &LockModel, state: &State) -> bool {
    pods().filter(|pod| !state.pod(*pod).is_frozen).all(|pod| {
        let it = state.pod(pod);
        let is_pending = |socket: u8| {
            let is_connecting = state.socket(socket).claim.is_some() || state.socket(socket).stage == Stage::Connecting;
            let is_on_its_way = !it.is_cut && (state.kills.has(socket) || state.releases.has(socket));
            state.socket(socket).pod == pod && (is_connecting || is_on_its_way || model.is_overdue(state, socket))
        };
        let is_idle = it.renewal == Renewal::Idle && !renew::may_renew(model, state, pod);
        is_idle && !state.wild_kills[usize::from(pod)] && !sockets().any(is_pending)
    })
}

pub(crate) fn take(model: &LockModel, state: &mut State, action: Action) {
    match action {
        Action::Freeze(pod) => {
            state.faults_left -= 1;
            state.pod_mut(pod).is_frozen = true;
        }
        Action::Thaw(pod) => {
            let it = state.pod_mut(pod);
            (it.is_frozen, it.has_lapsed) = (false, it.is_cut && it.has_lapsed);
            state.calm = 0;
        }
        Action::Cut(pod) => cut(model, state, pod),
        Action::Heal(pod) => {
            let it = state.pod_mut(pod);
            // Subscribing anew asks for a sweep.
            (it.is_cut, it.is_due, it.has_lapsed) = (false, true, it.is_frozen && it.has_lapsed);
            state.calm = 0;
        }
        Action::Split => {
            state.faults_left -= 1;
            state.is_split = true;
        }
        Action::Mend => {
            state.is_split = false;
            state.calm = 0;
        }
        Action::Flush => {
            state.faults_left -= 1;
            state.lose(Loss::Store);
        }
        Action::Restore(socket) => {
            state.faults_left -= 1;
            state.lose(Loss::Store);
            state.set_lock(socket);
            state.lock = Some(Lock { owner: socket, left: TTL, is_restored: true });
        }
        Action::Tick => tick(state),
        _ => {}
    }
}

/// What a pod has asked the store for fails, and so do its connects; kills on their way to it are lost.
fn cut(model: &LockModel, state: &mut State, pod: PodId) {
    state.faults_left -= 1;
    state.pod_mut(pod).is_cut = true;
    state.wild_kills[usize::from(pod)] = false;
    for socket in sockets().filter(|socket| state.socket(*socket).pod == pod).collect::<Vec<_>>() {
        state.kills.take(socket);
        state.late_kills.take(socket);
        if state.socket(socket).claim.is_some() || state.socket(socket).stage == Stage::Connecting {
            give_up(model, state, socket, End::Refused);
        }
    }
    renew::fail(model, state, pod);
}

fn tick(state: &mut State) {
    let was_free_of_faults = state.is_free_of_faults();
    match &mut state.lock {
        Some(Lock { left: 1, .. }) => state.lose(Loss::RanOut),
        Some(lock) => lock.left -= 1,
        None => {}
    }
    for socket in &mut state.sockets {
        socket.confirmed = socket.confirmed.saturating_sub(1);
        if let Some((_, age)) = &mut socket.loss {
            *age = TTL.min(*age + 1);
        }
        if let Some((_, age)) = &mut socket.dispute {
            *age = (TTL + 1).min(*age + 1);
        }
        if let Some(claim) = &mut socket.claim {
            claim.age = TTL.min(claim.age + 1);
        }
    }
    for pod in &mut state.pods {
        if let Renewal::Asked { age, .. } | Renewal::TakingBack { age, .. } = &mut pod.renewal {
            *age = TTL.min(*age + 1);
        }
        pod.is_due = true;
        pod.has_lapsed |= pod.is_frozen || pod.is_cut;
    }
    state.calm = if was_free_of_faults { CALM.min(state.calm + 1) } else { 0 };
}
