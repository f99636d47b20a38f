//! What the stream still has when everything must have been settled.

use std::time::Duration;

use super::EVERYTHING_FLOWS_AGAIN;

/// Events that nobody took, and such as were taken and not settled, so long after the last was stored.
#[must_use]
pub fn unsettled(pending: u64, taken: usize, after: Duration) -> Option<(&'static str, String)> {
    (pending > 0 || taken > 0).then(|| {
        let what = format!("{pending} events are not taken and {taken} not settled, {after:?} after the last");
        (EVERYTHING_FLOWS_AGAIN, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_not_taken_or_not_settled_is_seen() {
        let see = |pending, taken| unsettled(pending, taken, Duration::from_secs(4)).map(|(name, _)| name);
        assert_eq!(see(0, 0), None);
        assert_eq!((see(1, 0), see(0, 1)), (Some(EVERYTHING_FLOWS_AGAIN), Some(EVERYTHING_FLOWS_AGAIN)));
    }
}
