//! How late events were for those whom a fault did not befall, beside how late they were before it in the same run.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{fault_time::FaultTime, socket::sockets};
use crate::{
    containers::pod,
    traffic::{
        evidence::Evidence,
        ledger::{Published, Seen},
    },
};

/// An event is late that takes longer than this: far more than an undisturbed fleet needs, on a machine that is busy with the
/// harness too.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// Lateness, in milliseconds, below which nobody looks: on a machine that is shared with the harness, the servers and whatever
/// else it does, times up to here are noise.
const NOISE_MS: u64 = 250;

/// How late events were for the sessions that were on other pods all the time; where a fault was not at one pod, for all
/// sessions. From the first attempt to store an event until the session saw it; 99th percentiles, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// Of what was stored before the fault.
    pub before_ms: Option<u64>,
    /// Of what was stored during the fault.
    pub during_ms: Option<u64>,
    /// The same without the events that are counted as late.
    pub in_time_ms: Option<u64>,
    /// Events, of those stored during the fault, that came to any of them more than a second late. What the pod had taken that
    /// the fault befell is among them: nobody else has it before the pod is back or the ack wait is over.
    pub late: usize,
}

impl Lateness {
    pub(super) fn of(evidence: &Evidence, published: &HashMap<u64, &Published>, fault: &FaultTime) -> Self {
        let faulty = fault.pod.map(pod::id);
        let (mut before, mut during, mut late) = (Vec::new(), Vec::new(), HashSet::new());
        for ledger in &evidence.ledgers {
            let sockets = sockets(ledger);
            if sockets.iter().any(|socket| faulty.as_deref() == Some(socket.pod)) {
                continue;
            }
            for (socket, entry) in sockets.iter().flat_map(|socket| socket.entries.iter().map(move |entry| (socket, *entry))) {
                let Seen::Event { number, .. } = entry.seen else { continue };
                // What was stored before the socket was there, and comes all the same, is not late.
                let Some(event) = published.get(&number).filter(|event| socket.owed(event)) else { continue };
                let time = entry.at.saturating_duration_since(event.started);
                // What was stored in the last moment before the fault may still be on its way when it begins.
                if event.started + LATE < fault.began {
                    before.push(time);
                } else if event.started <= fault.ended {
                    during.push((number, time));
                    if time > LATE {
                        late.insert(number);
                    }
                }
            }
        }
        let in_time = during.iter().filter(|(number, _)| !late.contains(number)).map(|(_, time)| *time).collect();
        let during = during.into_iter().map(|(_, time)| time).collect();
        Self { before_ms: p99(before), during_ms: p99(during), in_time_ms: p99(in_time), late: late.len() }
    }

    /// Was what came in time in time as before: at the 99th percentile at most twice as late, or too little to be told from
    /// noise?
    #[must_use]
    pub fn is_the_same(&self) -> bool {
        let Some((before, during)) = self.before_ms.zip(self.in_time_ms) else { return false };
        during <= (2 * before).max(NOISE_MS)
    }
}

/// Whole milliseconds of a time.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn p99(mut times: Vec<Duration>) -> Option<u64> {
    times.sort_unstable();
    let place = (times.len() * 99).div_ceil(100).checked_sub(1)?;
    times.get(place).map(|time| milliseconds(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_may_be_later_than_the_99th_percentile() {
        assert_eq!(p99(Vec::new()), None);
        assert_eq!(p99((1..=100).map(Duration::from_millis).collect()), Some(99));
        assert_eq!(p99(vec![Duration::from_millis(7)]), Some(7));
    }

    #[test]
    fn twice_as_late_is_noticed_only_above_the_noise() {
        let of = |before, during| Lateness { before_ms: Some(before), in_time_ms: Some(during), ..Lateness::default() };
        assert!(of(10, 250).is_the_same() && of(200, 400).is_the_same());
        assert!(!of(10, 251).is_the_same() && !of(200, 401).is_the_same());
        assert!(!Lateness::default().is_the_same(), "without events there is nothing to be the same");
    }
}
