//! Who has a session.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{EVERYBODY_GETS_IN, Here, NOTHING_WRITTEN_PAST_THE_LOCK, ONE_SOCKET_A_SESSION, SOMEBODY_HAS_THE_SESSION};
use crate::history::{History, Socket, TroubleKind};

/// A socket that a pod counts among its sessions at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Open {
    /// Whose.
    pub person: usize,
    /// Where.
    pub slot: usize,
    /// Its place in the history.
    pub socket: usize,
}

impl Open {
    /// All of them.
    #[must_use]
    pub fn all(history: &History, here: &Here) -> Vec<Self> {
        let open = |(number, socket): (usize, &Socket)| {
            let is_open = here.sockets.contains(&socket.owner);
            is_open.then_some(Self { person: socket.person, slot: socket.slot, socket: number })
        };
        history.sockets.iter().enumerate().filter_map(open).collect()
    }
}

/// Sessions with two sockets, and since when.
///
/// Two are allowed for as long as it takes to tell the one who lost: a moment where kills arrive; until its next renewal where
/// they may not. Where a pod does not reach the store it can't be told, so that time does not count, nor what it takes to settle
/// a dispute after it.
#[derive(Debug)]
pub struct Doubled {
    /// As long as it may take to tell the loser.
    pub bound: Duration,
    /// As long as it may take to settle a dispute.
    pub settling: Duration,
    since: BTreeMap<usize, (Duration, BTreeSet<Open>)>,
}

/// What keeps a pod from being told that it has lost a session, or others from asking whether it has it.
pub(super) const DEAF: [TroubleKind; 5] =
    [TroubleKind::Frozen, TroubleKind::Down, TroubleKind::Links, TroubleKind::Store, TroubleKind::LostData];

impl Doubled {
    /// None yet.
    #[must_use]
    pub fn new(bound: Duration, settling: Duration) -> Self {
        Self { bound, settling, since: BTreeMap::new() }
    }

    /// Looks at all sockets that are open now. What is wrong, if anything.
    pub fn look(&mut self, open: &[Open], history: &History, now: Duration) -> Option<(&'static str, String)> {
        let mut by_person: BTreeMap<usize, BTreeSet<Open>> = BTreeMap::new();
        let told_by = now.saturating_sub(self.settling);
        for socket in open.iter().filter(|open| !history.was_broken(&DEAF, open.slot, told_by, now)) {
            by_person.entry(socket.person).or_default().insert(*socket);
        }
        by_person.retain(|_, sockets| sockets.len() > 1);
        self.since.retain(|person, (_, before)| by_person.get(person).is_some_and(|now| now.intersection(before).count() > 1));
        for (person, sockets) in by_person {
            let (since, _) = self.since.entry(person).or_insert_with(|| (now, sockets.clone()));
            if now - *since > self.bound {
                let owners: Vec<&str> = sockets.iter().map(|open| history.sockets[open.socket].owner.as_str()).collect();
                let what = format!("person {person} has had {owners:?} for {:?}", now - *since);
                return Some((ONE_SOCKET_A_SESSION, what));
            }
        }
        None
    }
}

/// An event that a socket reads now was written when its lock had run out, at the latest, at `lock_ends`. A goodbye may be said
/// for half a second after that, and deadlines are looked at each tenth.
#[must_use]
pub fn written_late(number: usize, socket: &Socket, lock_ends: Duration, now: Duration) -> Option<(&'static str, String)> {
    // What was read late was not necessarily written late.
    let is_late = socket.stalls.is_empty() && now > lock_ends + Duration::from_millis(700);
    is_late.then(|| {
        let what = format!("socket {number} got an event at {now:?}, and its lock ran out at {lock_ends:?}");
        (NOTHING_WRITTEN_PAST_THE_LOCK, what)
    })
}

/// Was everybody who wanted a session told that somebody else has it? `alive`: tabs that have it or still want it; `left`: tabs
/// that were closed by who opened them, whose sessions nobody has to have.
#[must_use]
pub fn nobody_has_it(person: usize, tabs: u64, alive: u64, left: u64) -> Option<(&'static str, String)> {
    let nobody = tabs > 0 && alive == 0 && left == 0;
    nobody
        .then(|| (SOMEBODY_HAS_THE_SESSION, format!("all {tabs} tabs of person {person} were told that another has the session")))
}

/// Who wants a session and has none, when nothing is broken any more: `wants` has the number of tabs of each person that have one
/// or want one.
#[must_use]
pub fn kept_out(wants: &[u64], history: &History) -> Option<(&'static str, String)> {
    let has_one = |person: usize| history.sockets.iter().any(|socket| socket.person == person && socket.is_open());
    let absent: Vec<usize> = (0..wants.len()).filter(|person| wants[*person] > 0 && !has_one(*person)).collect();
    (!absent.is_empty()).then(|| (EVERYBODY_GETS_IN, format!("{absent:?} want a session and have none")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{End, Moment, Trouble};

    const SECOND: Duration = Duration::from_secs(1);

    fn two_sockets() -> (History, [Open; 2]) {
        let socket = |slot| Socket { slot, owner: format!("pod-{slot}/x"), ..Socket::default() };
        let history = History { sockets: vec![socket(0), socket(1)], ..History::default() };
        (history, [0, 1].map(|slot| Open { person: 0, slot, socket: slot }))
    }

    #[test]
    fn two_sockets_of_a_session_are_seen_once_it_takes_too_long() {
        let (history, open) = two_sockets();
        let mut doubled = Doubled::new(SECOND, SECOND);
        assert_eq!(doubled.look(&open, &history, SECOND), None);
        assert_eq!(doubled.look(&open, &history, 2 * SECOND), None);
        assert_eq!(doubled.look(&open, &history, 3 * SECOND).map(|(name, _)| name), Some(ONE_SOCKET_A_SESSION));
        let mut doubled = Doubled::new(SECOND, SECOND);
        for at in 1..10 {
            assert_eq!(doubled.look(&open[..at % 2 + 1], &history, at as u32 * SECOND), None, "never for long");
        }
    }

    #[test]
    fn a_pod_that_cannot_be_told_is_forgiven_until_a_dispute_is_settled() {
        let (mut history, open) = two_sockets();
        let trouble = Trouble { kind: TroubleKind::Store, slot: Some(1), from: SECOND, until: Some(20 * SECOND) };
        history.troubles.push(trouble);
        let mut doubled = Doubled::new(SECOND, 5 * SECOND);
        let seen = (2..40).find(|at| doubled.look(&open, &history, *at * SECOND).is_some());
        assert_eq!(seen, Some(28));
    }

    #[test]
    fn an_event_past_the_life_of_the_lock_is_seen_unless_the_client_read_late() {
        let mut socket = Socket::default();
        let see = |socket: &Socket, now: u32| written_late(0, socket, 10 * SECOND, now * SECOND).map(|(name, _)| name);
        assert_eq!((see(&socket, 10), see(&socket, 11)), (None, Some(NOTHING_WRITTEN_PAST_THE_LOCK)));
        socket.stalls.push((Moment::default(), None));
        assert_eq!(see(&socket, 11), None);
    }

    #[test]
    fn who_loses_to_nobody_is_seen() {
        assert!(nobody_has_it(0, 2, 0, 0).is_some());
        assert!(
            nobody_has_it(0, 2, 1, 0).is_none() && nobody_has_it(0, 2, 0, 1).is_none() && nobody_has_it(0, 0, 0, 0).is_none()
        );
    }

    #[test]
    fn who_wants_a_session_and_has_none_is_seen() {
        let (mut history, _) = two_sockets();
        let see = |wants: &[u64], history: &History| kept_out(wants, history).map(|(name, _)| name);
        assert_eq!(see(&[1], &history), Some(EVERYBODY_GETS_IN), "neither socket is ready");
        assert_eq!(see(&[0], &history), None, "they want none");
        history.sockets[1].ready = Some(Moment::default());
        assert_eq!(see(&[1], &history), None);
        assert_eq!(see(&[1, 1], &history), Some(EVERYBODY_GETS_IN), "another has none");
        history.sockets[1].ended = Some((Moment::default(), End::Broken));
        assert_eq!(see(&[1], &history), Some(EVERYBODY_GETS_IN));
    }

    #[test]
    fn a_socket_is_open_while_a_pod_counts_it_among_its_sessions() {
        let (history, _) = two_sockets();
        let here = Here { sockets: ["pod-1/x".to_owned()].into(), ..Here::default() };
        assert_eq!(Open::all(&history, &here), [Open { person: 0, slot: 1, socket: 1 }]);
        assert_eq!(Open::all(&history, &Here::default()), []);
    }
}
