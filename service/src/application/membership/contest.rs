//! Two processes under one id: does the one that holds it live?

use std::time::Duration;

use daisi_ws_domain::peer::PodRecord;
use tokio::time::Instant;

use crate::ports::IdTaken;

/// By so much later than expected a key must run out to count as renewed: answers take their time.
const MARGIN: Duration = Duration::from_millis(500);
/// From so many renewals on, a record belongs to somebody who lives: a store that goes back renews it as well, now and then.
const RENEWALS: u32 = 3;

/// What a look at the holder's record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// The holder lives.
    Yield,
}

/// The record that holds the id, when its key would run out, and how often it was renewed.
#[derive(Debug, Default)]
pub(super) struct Contest(Option<(PodRecord, Instant, u32)>);

impl Contest {
    /// Takes note of the holder as it was seen at `now`.
    pub(super) fn look(&mut self, taken: &IdTaken, now: Instant) -> Step {
        let ends = now + taken.expires_in;
        match &mut self.0 {
            Some((record, expected, renewals)) if *record == taken.record => {
                if ends > *expected + MARGIN {
                    (*expected, *renewals) = (ends, *renewals + 1);
                }
                if *renewals >= RENEWALS { Step::Yield } else { Step::Wait }
            }
            _ => {
                self.0 = Some((taken.record.clone(), ends, 0));
                Step::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::ids::PodId;

    use super::*;

    fn taken(start: u64, expires_in: u64) -> IdTaken {
        let record = PodRecord { id: PodId::parse("a").unwrap(), address: "a:1".into(), started_at: Duration::from_secs(start) };
        IdTaken { record, expires_in: Duration::from_millis(expires_in) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_renewed_belongs_to_somebody_who_lives() {
        let (mut contest, now) = (Contest::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(contest.look(&taken(1, 4000), now), Step::Wait);
        assert_eq!(contest.look(&taken(1, 3100), at(1000)), Step::Wait, "an answer that took a while");
        for (ms, step) in [(1200, Step::Wait), (2200, Step::Wait), (3200, Step::Yield)] {
            assert_eq!(contest.look(&taken(1, 5000), at(ms)), step, "{ms}");
            assert_eq!(contest.look(&taken(1, 4900), at(ms + 100)), step, "it is looked at more often than it is renewed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_runs_out_is_waited_for() {
        let (mut contest, now) = (Contest::default(), Instant::now());
        for ms in (0..4000).step_by(200) {
            assert_eq!(contest.look(&taken(1, 4000 - ms), now + Duration::from_millis(ms)), Step::Wait);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_holder_is_looked_at_anew() {
        let (mut contest, now) = (Contest::default(), Instant::now());
        assert_eq!(contest.look(&taken(1, 100), now), Step::Wait);
        assert_eq!(contest.look(&taken(2, 5000), now + Duration::from_millis(200)), Step::Wait);
    }
}
