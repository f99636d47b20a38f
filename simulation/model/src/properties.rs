//! What has to hold in every state, and what has to be possible for that to mean anything.

use stateright::Property;

use crate::{
    model::{LockModel, Policy},
    state::{CALM, End, Loss, MARGIN, Renewal, SocketId, Stage, State, TTL, Wrong, sockets},
};

/// G3 and its bound: of sockets that write, each has the lock, or lost it in one of the known ways so short a time ago.
pub const FENCE: &str = "who writes has the lock, or lost it to the store or to a rival within the bound";
/// G3 without its bound.
pub const ALONE: &str = "without a fault, at most one socket writes";
/// The newest wins.
pub const ELDERS: &str = "nobody gives way to who is no more, or from whom it took the session";
/// Progress.
pub const HAVE_IT: &str = "once faults are over, just one of the sockets that are left has the session";
/// Nothing is left behind.
pub const NO_GHOST: &str = "once faults are over, nobody stands in the lock who is no more";
/// All sockets, one after another.
pub const ALL_HAD_IT: &str = "the session passes through all sockets";
/// What the bound is for.
pub const TWO_WRITE: &str = "two sockets write at once";
/// A known limit: nobody can tell which of two sockets is older, if neither took the session from the other.
pub const STRANGERS: &str = "a socket gives way to an elder one that it never met";
/// What a dispute is for.
pub const TAKEN_BACK: &str = "a lock is taken back";
/// What the fence is for.
pub const FENCED: &str = "a socket is closed as its lock is unconfirmed";

/// All of them, as far as they mean something under the model's settings.
pub(crate) fn all(model: &LockModel) -> Vec<Property<LockModel>> {
    let mut all = vec![
        Property::always(FENCE, |model, state| sockets().all(|socket| may_write_or_does_not(model, state, socket))),
        Property::always(ALONE, |model: &LockModel, state: &State| {
            state.faults_left < model.faults || writers(model, state) <= 1
        }),
        Property::always(ELDERS, |_, state: &State| state.wrong != Wrong::Known),
        Property::always(HAVE_IT, |model, state: &State| state.calm < CALM || is_settled(model, state)),
        Property::always(NO_GHOST, |_, state: &State| state.calm < CALM || !has_ghost(state)),
        Property::sometimes(ALL_HAD_IT, |model, state: &State| {
            let (newest, others) = (model.sockets - 1, 0..model.sockets - 1);
            state.is_open(newest) && others.into_iter().all(|socket| state.socket(socket).stage == Stage::Ended(End::Replaced))
        }),
    ];
    if model.faults >= 1 {
        all.push(Property::sometimes(TWO_WRITE, |model, state| writers(model, state) > 1));
    }
    if model.faults >= 1 && model.policy == Policy::Strict {
        all.push(Property::sometimes(FENCED, |_, state: &State| {
            state.sockets.iter().any(|socket| socket.stage == Stage::Ended(End::Unconfirmed))
        }));
    }
    if model.faults >= 1 && model.sockets > 2 {
        all.push(Property::sometimes(STRANGERS, |_, state: &State| state.wrong == Wrong::Strangers));
    }
    if model.faults >= 2 {
        all.push(Property::sometimes(TAKEN_BACK, |_, state: &State| {
            state.pods.iter().any(|pod| matches!(pod.renewal, Renewal::TakingBack { answer: Some(true), .. }))
        }));
    }
    all
}

fn writers(model: &LockModel, state: &State) -> usize {
    sockets().filter(|socket| model.may_write(state, *socket)).count()
}

fn may_write_or_does_not(model: &LockModel, state: &State, socket: SocketId) -> bool {
    if !model.may_write(state, socket) {
        return true;
    }
    let is_strict = model.policy == Policy::Strict;
    match state.socket(socket).loss {
        None => true,
        Some((Loss::Store | Loss::Replaced, age)) => !is_strict || age < TTL - MARGIN,
        Some((Loss::RanOut, _)) => !is_strict,
        Some((Loss::GivenBack | Loss::Overwritten, _)) => false,
    }
}

/// Is the lock one of a socket that is no more? What an old snapshot brought back, its end tidies up, as nobody could.
fn has_ghost(state: &State) -> bool {
    state.lock.is_some_and(|lock| !state.is_open(lock.owner) && !lock.is_restored)
}

/// Is either nobody left, or just one socket, open, with the lock?
fn is_settled(model: &LockModel, state: &State) -> bool {
    let mut left = sockets().filter(|socket| state.is_in_hub(*socket));
    match (left.next(), left.next()) {
        (None, _) => true,
        (Some(socket), None) => model.may_write(state, socket) && state.has_lock(socket),
        (Some(_), Some(_)) => false,
    }
}
