//! What is on its way: kills to pods, releases to the store.

use crate::{
    action::Action,
    model::LockModel,
    state::{End, State, pods, sockets},
};

pub(crate) fn offer(_model: &LockModel, state: &State, actions: &mut Vec<Action>) {
    let has_faults = state.faults_left > 0;
    for socket in sockets() {
        let pod = state.pod_of(socket);
        let (is_prompt, is_late) = (state.kills.has(socket), state.late_kills.has(socket));
        if (is_prompt || is_late) && !pod.is_frozen {
            actions.push(Action::KillHeard(socket));
        }
        if is_prompt && has_faults {
            actions.extend([Action::KillLost(socket), Action::KillDelayed(socket)]);
        }
        // One that was sent before the pod froze is carried out all the same.
        if state.releases.has(socket) && !pod.is_cut {
            actions.push(Action::Released(socket));
        }
    }
    let hears = |pod: &u8| state.wild_kills[usize::from(*pod)] && !state.pod(*pod).is_frozen;
    actions.extend(pods().filter(hears).map(Action::WildKillHeard));
}

pub(crate) fn take(model: &LockModel, state: &mut State, action: Action) {
    match action {
        Action::KillHeard(socket) => {
            state.kills.take(socket);
            state.late_kills.take(socket);
            model.obey(state, socket);
        }
        Action::KillLost(socket) => {
            state.faults_left -= 1;
            state.kills.take(socket);
        }
        Action::KillDelayed(socket) => {
            state.faults_left -= 1;
            state.kills.take(socket);
            state.late_kills.add(socket);
        }
        Action::WildKillHeard(pod) => {
            state.wild_kills[usize::from(pod)] = false;
            for socket in sockets() {
                if state.socket(socket).pod == pod && state.is_in_hub(socket) {
                    model.end(state, socket, End::Replaced);
                }
            }
        }
        Action::Released(socket) => {
            state.releases.take(socket);
            model.release(state, socket);
        }
        _ => {}
    }
}
