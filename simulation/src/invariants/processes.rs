//! What no process of a pod may do.

use super::{NOBODY_GIVES_UP_ITS_ID, NOTHING_PANICS};
use crate::history::{History, PodLife};

/// A pod that took itself for another, and was alone under its id from its start on.
#[must_use]
pub fn gave_up_its_id(history: &History) -> Option<(&'static str, String)> {
    history.gave_up_ids.iter().find_map(|(at, number)| {
        let pod = &history.pods[*number];
        let lived = |other: &PodLife| other.from <= *at && other.until.is_none_or(|until| until >= pod.from);
        let others = history.pods.iter().enumerate().filter(|(place, other)| place != number && other.id == pod.id);
        let is_alone = !others.map(|(_, other)| other).any(lived);
        is_alone.then(|| (NOBODY_GIVES_UP_ITS_ID, format!("{} takes its id for another's at {at:?}", pod.id)))
    })
}

/// Tasks that panicked, by what their pod has counted.
#[must_use]
pub fn panicked(pod: &str, panics: u64) -> Option<(&'static str, String)> {
    (panics > 0).then(|| (NOTHING_PANICS, format!("{panics} tasks of {pod} panicked")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn life(from: u32, until: Option<u32>) -> PodLife {
        let at = |second: u32| second * SECOND;
        PodLife { id: "pod-0".to_owned(), slot: 0, from: at(from), until: until.map(at), killed: false }
    }

    #[test]
    fn a_pod_that_is_alone_under_its_id_and_gives_it_up_is_seen() {
        let see = |pods: &[PodLife], gave_up: &[(Duration, usize)]| {
            let history = History { pods: pods.to_vec(), gave_up_ids: gave_up.to_vec(), ..History::default() };
            gave_up_its_id(&history).map(|(name, _)| name)
        };
        let seen = Some(NOBODY_GIVES_UP_ITS_ID);
        assert_eq!(see(&[life(5, None)], &[]), None, "it did not");
        assert_eq!(see(&[life(5, None)], &[(9 * SECOND, 0)]), seen);
        assert_eq!(see(&[life(0, Some(4)), life(5, None)], &[(9 * SECOND, 1)]), seen, "the one before was gone");
        assert_eq!(see(&[life(5, None), life(10, None)], &[(9 * SECOND, 0)]), seen, "the next one was not there yet");
        assert_eq!(see(&[life(5, None), life(7, None)], &[(9 * SECOND, 0)]), None, "another has it too");
        let elsewhere = PodLife { id: "pod-1".to_owned(), ..life(0, None) };
        assert_eq!(see(&[elsewhere, life(5, None)], &[(9 * SECOND, 1)]), seen);
    }

    #[test]
    fn a_task_that_panicked_is_seen() {
        assert_eq!(panicked("pod-0", 0), None);
        assert_eq!(panicked("pod-0", 1).map(|(name, _)| name), Some(NOTHING_PANICS));
    }
}
