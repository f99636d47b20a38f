//! What must hold: after each tick of a run, and at its end. Each works on plain data, so that a test can show it a history that
//! is broken.

mod bounds;
mod ghosts;
mod holders;
mod ledger;
mod leftovers;
mod patience;
mod places;
mod processes;
mod sessions;
mod settled;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use self::{
    bounds::{Load, too_much},
    ghosts::{Ghost, Ghosts},
    holders::Holders,
    ledger::{Judgement, account},
    leftovers::{endless, left_in_the_end, leftovers},
    patience::Bounds,
    places::places,
    processes::{gave_up_its_id, panicked},
    sessions::{Doubled, Open, kept_out, nobody_has_it, written_late},
    settled::unsettled,
};

/// Who is here at a moment, as the pods themselves see it.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// Pods that run, with their places.
    pub pods: BTreeMap<String, usize>,
    /// Sockets that they count among their sessions, admitted or not: `pod/connection`.
    pub sockets: BTreeSet<String>,
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Its name.
    pub invariant: &'static str,
    /// When it was seen, since the begin.
    pub at: Duration,
    /// What was seen.
    pub what: String,
}

/// G3: for no longer than it takes to tell the loser, two sockets of one session are open.
pub const ONE_SOCKET_A_SESSION: &str = "one socket a session";
/// G3: a lock passes on when it is let go, has run out, or is taken from just that owner who was seen in it.
pub const LOCK_IS_TAKEN_FROM_WHO_IS_EXPECTED: &str = "a lock is taken from who is expected";
/// G3: with the policy `strict`, no event is written past the life of the socket's lock.
pub const NOTHING_WRITTEN_PAST_THE_LOCK: &str = "nothing is written past the lock";
/// G3: who has a session is there; what a socket had is given back when it ends, whatever is under way just then.
pub const NO_LOCK_OF_NOBODY: &str = "no lock of nobody";
/// G3: of all who fight for a session one has it in the end.
pub const SOMEBODY_HAS_THE_SESSION: &str = "somebody has the session";
/// G1, G2, G5: what is owed to a socket comes or is announced.
pub const NOTHING_IS_LOST: &str = "nothing is lost";
/// G1: nothing comes twice on one socket.
pub const NOTHING_IS_DOUBLED: &str = "nothing is doubled";
/// G4: nothing comes to anybody whom it does not concern.
pub const NOTHING_IS_MISDELIVERED: &str = "nothing is misdelivered";
/// What one pod took of one subject, and was delivered once, comes in order.
pub const ORDER_IS_KEPT: &str = "order is kept";
/// G5: who misses nothing is told of no gap.
pub const NO_GAP_WITHOUT_A_REASON: &str = "no gap without a reason";
/// G9: what waits is within its bound.
pub const EVERYTHING_IS_BOUNDED: &str = "everything is bounded";
/// G7: once nothing is broken any more, everything flows again.
pub const EVERYTHING_FLOWS_AGAIN: &str = "everything flows again";
/// G7: once nothing is broken any more, everybody gets in who wants to.
pub const EVERYBODY_GETS_IN: &str = "everybody gets in";
/// G8: a pod that has drained leaves nothing behind.
pub const NOTHING_IS_LEFT: &str = "nothing is left";
/// G8: a pod that is told to drain comes to its end in time.
pub const DRAINS_END: &str = "drains end";
/// A pod that is alone under its id goes on under it, whatever the store says.
pub const NOBODY_GIVES_UP_ITS_ID: &str = "nobody gives up its id";
/// No task of a pod panics.
pub const NOTHING_PANICS: &str = "nothing panics";

/// G10: who is told to have everything up to a place in the stream has it by then, or was told of a gap.
pub const THE_PLACE_IS_SAFE: &str = "the place is safe";
/// G10: who resumes gets all that came after the cursor, in order, before anything newer.
pub const A_RESUME_IS_WHOLE: &str = "a resume is whole";

/// All of them.
pub const ALL: &[&str] = &[
    ONE_SOCKET_A_SESSION,
    LOCK_IS_TAKEN_FROM_WHO_IS_EXPECTED,
    NOTHING_WRITTEN_PAST_THE_LOCK,
    NO_LOCK_OF_NOBODY,
    SOMEBODY_HAS_THE_SESSION,
    NOTHING_IS_LOST,
    THE_PLACE_IS_SAFE,
    A_RESUME_IS_WHOLE,
    NOTHING_IS_DOUBLED,
    NOTHING_IS_MISDELIVERED,
    ORDER_IS_KEPT,
    NO_GAP_WITHOUT_A_REASON,
    EVERYTHING_IS_BOUNDED,
    EVERYTHING_FLOWS_AGAIN,
    EVERYBODY_GETS_IN,
    NOTHING_IS_LEFT,
    DRAINS_END,
    NOBODY_GIVES_UP_ITS_ID,
    NOTHING_PANICS,
];
