//! Locks of sockets that are no more.

use std::{collections::BTreeMap, time::Duration};

use super::{Here, NO_LOCK_OF_NOBODY};
use crate::history::{History, TroubleKind};

/// What keeps a pod from letting a lock go.
const BOUND: [TroubleKind; 4] = [TroubleKind::Frozen, TroubleKind::Down, TroubleKind::Store, TroubleKind::LostData];

/// A lock that names a socket which its pod does not have any more, at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ghost {
    /// As the lock names it.
    pub owner: String,
    /// Where its pod runs.
    pub slot: usize,
}

impl Ghost {
    /// Those of the locks' owners that are such: of a pod that is here, and without their socket, admitted or not.
    #[must_use]
    pub fn all(owners: &[String], here: &Here) -> Vec<Self> {
        let ghost = |owner: &String| {
            let (pod, _) = owner.split_once('/')?;
            let slot = *here.pods.get(pod)?;
            (!here.sockets.contains(owner)).then(|| Self { owner: owner.clone(), slot })
        };
        owners.iter().filter_map(ghost).collect()
    }
}

/// Such locks, and since when.
///
/// One is allowed for as long as a release takes, and a renewal that was under way and the next one, which releases what that
/// took. A pod that does not reach the store can't release anything, so that time does not count, nor what it takes after it.
#[derive(Debug)]
pub struct Ghosts {
    /// For how long there may be one.
    pub bound: Duration,
    /// How long the aftermath of a trouble lasts.
    pub settling: Duration,
    since: BTreeMap<String, Duration>,
}

impl Ghosts {
    /// None yet.
    #[must_use]
    pub fn new(bound: Duration, settling: Duration) -> Self {
        Self { bound, settling, since: BTreeMap::new() }
    }

    /// Looks at all that there are now. What is wrong, if anything.
    pub fn look(&mut self, ghosts: &[Ghost], history: &History, now: Duration) -> Option<(&'static str, String)> {
        let after = now.saturating_sub(self.settling);
        let counted = |ghost: &&Ghost| !history.was_broken(&BOUND, ghost.slot, after, now);
        let counted: Vec<&Ghost> = ghosts.iter().filter(counted).collect();
        self.since.retain(|owner, _| counted.iter().any(|ghost| ghost.owner == *owner));
        for ghost in counted {
            let since = *self.since.entry(ghost.owner.clone()).or_insert(now);
            if now - since > self.bound {
                let what = format!("{} is no more, and has had its lock for {:?}", ghost.owner, now - since);
                return Some((NO_LOCK_OF_NOBODY, what));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Trouble, TroubleKind};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lock_of_nobody_is_seen_once_it_stands_too_long_and_its_pod_could_release_it() {
        let ghost = [Ghost { owner: "pod-0/x".to_owned(), slot: 0 }];
        let seen = |history: &History| {
            let mut ghosts = Ghosts::new(5 * SECOND, 2 * SECOND);
            (0..40).find(|at| ghosts.look(&ghost, history, *at * SECOND).is_some())
        };
        let mut history = History::default();
        assert_eq!(seen(&history), Some(6));
        history.troubles.push(Trouble { kind: TroubleKind::Store, slot: Some(0), from: SECOND, until: Some(10 * SECOND) });
        assert_eq!(seen(&history), Some(19));
        let mut ghosts = Ghosts::new(5 * SECOND, 2 * SECOND);
        assert!(
            (0..40).all(|at| ghosts.look(&ghost[..at % 2], &History::default(), at as u32 * SECOND).is_none()),
            "never for long"
        );
    }

    #[test]
    fn a_lock_is_nobodys_if_its_pod_is_here_and_has_no_such_socket() {
        let owners = ["pod-0/x", "pod-0/y", "pod-1/z", "pod-0"].map(str::to_owned);
        let here = Here { pods: [("pod-0".to_owned(), 3)].into(), sockets: ["pod-0/x".to_owned()].into() };
        assert_eq!(Ghost::all(&owners, &here), [Ghost { owner: "pod-0/y".to_owned(), slot: 3 }]);
    }
}
