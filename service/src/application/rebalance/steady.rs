//! Whether the fleet has been the same for a while: a pod that comes and goes moves nobody.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::peer::PodRecord;
use tokio::time::Instant;

/// The members have to be the same for so long. So a pod that has just begun waits as long.
const STEADY_FOR: Duration = Duration::from_secs(60);
/// Who did not look for longer, frozen perhaps, may have missed something.
const UNSEEN: Duration = Duration::from_secs(10);

/// Since when the members are the same, each the same process, without a doubt about any.
#[derive(Debug, Default)]
pub(super) struct Steady {
    members: Vec<Arc<PodRecord>>,
    since: Option<Instant>,
    looked: Option<Instant>,
}

impl Steady {
    /// Takes note of the other members as they are now; nothing while that is in doubt. Have they been the same for long enough?
    pub(super) fn look(&mut self, members: Option<Vec<Arc<PodRecord>>>, now: Instant) -> bool {
        let saw_all = self.looked.replace(now).is_some_and(|looked| now.saturating_duration_since(looked) <= UNSEEN);
        match members {
            None => self.since = None,
            Some(members) if saw_all && self.since.is_some() && members == self.members => {}
            Some(members) => {
                self.members = members;
                self.since = Some(now);
            }
        }
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= STEADY_FOR)
    }

    /// The other members, as noted last.
    pub(super) fn members(&self) -> &[Arc<PodRecord>] {
        &self.members
    }

    /// As if they had changed just now.
    pub(super) fn begin_anew(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::ids::PodId;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pod(id: &str, started_at: u64) -> Arc<PodRecord> {
        let id = PodId::parse(id).unwrap();
        Arc::new(PodRecord { address: format!("{id}:1"), id, started_at: Duration::from_secs(started_at) })
    }

    /// For how many looks, one a second, the members do not count as steady once they are these.
    fn seconds_until_steady(steady: &mut Steady, now: &mut Instant, members: &[Arc<PodRecord>]) -> u64 {
        (0..1000)
            .find(|_| {
                *now += SECOND;
                steady.look(Some(members.to_vec()), *now)
            })
            .unwrap()
    }

    #[test]
    fn members_are_steady_once_they_have_been_the_same_for_a_minute() {
        let (mut steady, mut now) = (Steady::default(), Instant::now());
        let before = [pod("a", 1), pod("b", 1)];
        assert_eq!(seconds_until_steady(&mut steady, &mut now, &before), 60);
        assert_eq!(seconds_until_steady(&mut steady, &mut now, &before), 0);
        // One that left, one that came, one that was started again.
        for after in [vec![pod("a", 1)], vec![pod("a", 1), pod("c", 1)], vec![pod("a", 1), pod("c", 2)]] {
            assert_eq!(seconds_until_steady(&mut steady, &mut now, &after), 60, "{after:?}");
            assert_eq!(steady.members(), after);
        }
    }

    #[test]
    fn a_doubt_or_a_time_without_a_look_begins_the_minute_anew() {
        let (mut steady, mut now) = (Steady::default(), Instant::now());
        let members = [pod("a", 1)];
        assert_eq!(seconds_until_steady(&mut steady, &mut now, &members), 60);
        now += SECOND;
        assert!(!steady.look(None, now));
        assert_eq!(seconds_until_steady(&mut steady, &mut now, &members), 60);
        now += UNSEEN;
        assert_eq!(seconds_until_steady(&mut steady, &mut now, &members), 60);
        steady.begin_anew();
        assert_eq!(seconds_until_steady(&mut steady, &mut now, &members), 60);
    }
}
