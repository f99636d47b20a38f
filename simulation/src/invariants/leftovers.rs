//! What a pod leaves that has drained.

use std::time::Duration;

use super::{DRAINS_END, NOTHING_IS_LEFT};
use crate::history::Drain;

/// Servers are closed for so long after the time of a drain, at most.
const CLOSING: Duration = Duration::from_secs(4);

/// What is wrong with a drain that may take `within`, if anything.
#[must_use]
pub fn leftovers(drain: &Drain, within: Duration) -> Option<(&'static str, String)> {
    let pod = &drain.pod;
    let ended = drain.ended?;
    let took = (ended - drain.began).saturating_sub(drain.frozen);
    if took > within + CLOSING {
        return Some((DRAINS_END, format!("{pod} took {took:?} to drain, and may take {within:?}")));
    }
    if drain.tasks > 0 || drain.sockets > 0 {
        let Drain { tasks, sockets, .. } = drain;
        return Some((NOTHING_IS_LEFT, format!("{pod} has drained and has {tasks} tasks and {sockets} sockets")));
    }
    if drain.bytes > 0 {
        return Some((NOTHING_IS_LEFT, format!("{pod} has drained and counts {} bytes as held", drain.bytes)));
    }
    (drain.undisturbed && !drain.left.is_empty())
        .then(|| (NOTHING_IS_LEFT, format!("{pod} has drained and leaves {:?}", drain.left)))
}

/// What the store still holds when every pod has drained: each in words.
#[must_use]
pub fn left_in_the_end(held: &[String]) -> Option<(&'static str, String)> {
    (!held.is_empty()).then(|| (NOTHING_IS_LEFT, format!("in the end the store holds {held:?}")))
}

/// Pods that were to drain, and did not come to an end while they were waited for.
#[must_use]
pub fn endless(drains: &[Drain], waited: Duration, now: Duration) -> Option<(&'static str, String)> {
    let endless = |drain: &&Drain| drain.ended.is_none() && !drain.killed && drain.began + waited <= now;
    let pods: Vec<&str> = drains.iter().filter(endless).map(|drain| drain.pod.as_str()).collect();
    (!pods.is_empty()).then(|| (DRAINS_END, format!("{pods:?} have drained for {waited:?} and do not end")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn whatever_is_left_is_seen_and_what_a_broken_store_kept_is_not() {
        let fine = Drain { ended: Some(5 * SECOND), undisturbed: true, ..Drain::default() };
        let see = |drain: Drain| leftovers(&drain, 10 * SECOND).map(|(name, _)| name);
        assert_eq!(see(fine.clone()), None);
        let left = vec!["a lock".to_owned()];
        assert_eq!(see(Drain { left: left.clone(), ..fine.clone() }), Some(NOTHING_IS_LEFT));
        assert_eq!(see(Drain { left, undisturbed: false, ..fine.clone() }), None);
        assert_eq!(see(Drain { tasks: 1, ..fine.clone() }), Some(NOTHING_IS_LEFT));
        assert_eq!(see(Drain { sockets: 1, ..fine.clone() }), Some(NOTHING_IS_LEFT));
        assert_eq!(see(Drain { bytes: 1, ..fine.clone() }), Some(NOTHING_IS_LEFT));
        assert_eq!(see(Drain { ended: Some(15 * SECOND), ..fine.clone() }), Some(DRAINS_END));
        assert_eq!(see(Drain { ended: Some(15 * SECOND), frozen: 4 * SECOND, ..fine }), None);
    }

    #[test]
    fn a_drain_without_an_end_is_seen_unless_its_pod_was_killed() {
        let begun = Drain { began: 5 * SECOND, ..Drain::default() };
        let see = |drain: Drain, now: u32| endless(&[drain], 10 * SECOND, now * SECOND).map(|(name, _)| name);
        assert_eq!(see(begun.clone(), 14), None);
        assert_eq!(see(begun.clone(), 15), Some(DRAINS_END));
        assert_eq!(see(Drain { killed: true, ..begun.clone() }, 15), None);
        assert_eq!(see(Drain { ended: Some(15 * SECOND), ..begun }, 15), None, "it took long, and ended");
    }

    #[test]
    fn whatever_the_store_holds_in_the_end_is_seen() {
        assert_eq!(left_in_the_end(&[]), None);
        assert_eq!(left_in_the_end(&["a lock".to_owned()]).map(|(name, _)| name), Some(NOTHING_IS_LEFT));
    }
}
