//! When what is read from the inbox can have been sent at the earliest: it has its ack wait from then on, also where the link or
//! this pod stood still meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// A server that has our request is heard more often than this. One that was not sent what comes next at any time since.
const LATE: Duration = Duration::from_millis(1500);
/// A pod that works looks at its inbox more often than this. If it did not, something may lie in its socket that is not in the
/// inbox yet.
const PAUSE: Duration = Duration::from_millis(500);
/// What comes within this time after either was sent during it.
const CATCHING_UP: Duration = Duration::from_millis(250);

/// What is known of the inbox.
#[derive(Debug)]
pub(super) struct Arrival {
    /// When it was last seen empty.
    empty_at: Instant,
    /// Since when the link, or this pod, stood still, and until when what comes is from that time.
    stood_still: Option<(Instant, Instant)>,
}

impl Arrival {
    /// An inbox that is empty now.
    pub(super) fn new(now: Instant) -> Self {
        Self { empty_at: now, stood_still: None }
    }

    /// It was seen empty.
    pub(super) fn seen_empty(&mut self) {
        let now = Instant::now();
        self.look_for_a_pause(now);
        self.empty_at = now;
    }

    /// The earliest time at which what is read now was sent. `heard` is when the server was last heard, if it should be heard all
    /// the time.
    pub(super) fn earliest(&mut self, heard: Option<Instant>) -> Instant {
        let now = Instant::now();
        self.look_for_a_pause(now);
        if let Some(heard) = heard
            && now - heard >= LATE
        {
            self.stood_still = Some((heard, now + CATCHING_UP));
        }
        match self.stood_still {
            Some((since, until)) if now < until => since.min(self.empty_at),
            _ => self.empty_at,
        }
    }

    fn look_for_a_pause(&mut self, now: Instant) {
        if now - self.empty_at >= PAUSE {
            self.stood_still = Some((self.empty_at, now + CATCHING_UP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_a_pause_may_be_as_old_as_the_pause() {
        let start = Instant::now();
        let mut arrival = Arrival::new(start);
        tokio::time::advance(Duration::from_secs(3)).await;
        // The pod thaws, and its inbox is empty still: the socket is not.
        arrival.seen_empty();
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(arrival.earliest(None), start);
        tokio::time::advance(CATCHING_UP).await;
        assert_eq!(arrival.earliest(None), start + Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_a_silent_link_may_be_as_old_as_the_silence() {
        let heard = Instant::now();
        let mut arrival = Arrival::new(heard);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(100)).await;
            arrival.seen_empty();
        }
        assert_eq!(arrival.earliest(Some(heard)), heard);
        // The rest of the burst comes in more than one piece.
        tokio::time::advance(Duration::from_millis(100)).await;
        arrival.seen_empty();
        assert_eq!(arrival.earliest(Some(Instant::now())), heard);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_all_is_well_came_after_the_last_look() {
        let mut arrival = Arrival::new(Instant::now());
        tokio::time::advance(Duration::from_millis(100)).await;
        arrival.seen_empty();
        let empty_at = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(arrival.earliest(Some(empty_at)), empty_at);
    }
}
