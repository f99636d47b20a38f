//! What waits in a pod.

use super::EVERYTHING_IS_BOUNDED;
use crate::plan::Settings;

/// Bytes that an event of a run has at least, framed, with what a pod counts for each beside its bytes.
const LEAST_EVENT: usize = 40 + 256;
/// A gap may wait beside what it is about, and so may what is about to be written.
const BESIDE: usize = 2;
/// Tasks that a pod has without a socket or a peer, with room to spare.
const TASKS: usize = 60;
/// Tasks for each socket, and for each peer.
const TASKS_EACH: usize = 6;

/// How much waits in a pod.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Its id.
    pub pod: String,
    /// Items that wait for each socket.
    pub mailboxes: Vec<usize>,
    /// Bytes that it counts as held.
    pub bytes: usize,
    /// Bytes that it may hold.
    pub budget: usize,
    /// Tasks that run.
    pub tasks: usize,
    /// Other pods.
    pub peers: usize,
}

/// What is more than may be, if anything.
#[must_use]
pub fn too_much(load: &Load, settings: &Settings) -> Option<(&'static str, String)> {
    let bytes = settings.burst_bytes.max(settings.buffer_bytes);
    // With `block`, what would not have room for a socket that takes bytes has none for one that does not.
    let stalled = if settings.block { 0 } else { settings.buffer_messages };
    let waiting = (bytes / LEAST_EVENT).max(stalled) + BESIDE;
    let tasks = TASKS + TASKS_EACH * (load.mailboxes.len() + load.peers);
    let fullest = load.mailboxes.iter().copied().max().unwrap_or(0);
    let what = if fullest > waiting {
        format!("{fullest} items wait for a socket of {}, and {waiting} may", load.pod)
    } else if load.bytes > load.budget {
        format!("{} holds {} bytes, and may hold {}", load.pod, load.bytes, load.budget)
    } else if load.tasks > tasks {
        format!("{} has {} tasks for {} sockets and {} peers", load.pod, load.tasks, load.mailboxes.len(), load.peers)
    } else {
        return None;
    };
    Some((EVERYTHING_IS_BOUNDED, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn what_is_past_a_bound_is_seen() {
        let mut settings = Plan::of(1).settings;
        (settings.burst_bytes, settings.buffer_bytes, settings.buffer_messages, settings.block) = (4000, 4000, 10, false);
        let fine = Load { mailboxes: vec![15, 0], bytes: 5, budget: 10, tasks: 70, peers: 1, ..Load::default() };
        assert_eq!(too_much(&fine, &settings), None);
        for load in
            [Load { mailboxes: vec![16], ..fine.clone() }, Load { bytes: 11, ..fine.clone() }, Load { tasks: 79, ..fine.clone() }]
        {
            assert!(too_much(&load, &settings).is_some(), "{load:?}");
        }
    }
}
