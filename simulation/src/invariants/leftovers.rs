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
    if ended - drain.began > within + CLOSING {
        return Some((DRAINS_END, format!("{pod} took {:?} to drain, and may take {within:?}", ended - drain.began)));
    }
    if drain.tasks > 0 || drain.sockets > 0 {
        let Drain { tasks, sockets, .. } = drain;
        return Some((NOTHING_IS_LEFT, format!("{pod} has drained and has {tasks} tasks and {sockets} sockets")));
    }
    (drain.undisturbed && !drain.left.is_empty())
        .then(|| (NOTHING_IS_LEFT, format!("{pod} has drained and leaves {:?}", drain.left)))
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
        assert_eq!(see(Drain { ended: Some(15 * SECOND), ..fine }), Some(DRAINS_END));
    }
}
