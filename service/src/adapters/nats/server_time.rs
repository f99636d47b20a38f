//! The clock that time-stamps events, as far as it can be told from here: no promise may rest on two hosts' clocks agreeing.

use std::time::Duration;

use tokio::time::Instant;

/// A time of the server's, and when that was by the monotonic clock of this host.
#[derive(Debug, Default)]
pub(super) struct ServerTime {
    anchor: Option<(Duration, Instant)>,
}

impl ServerTime {
    /// The server has said what time it is. What was known before is forgotten: clocks drift, and another server may lead.
    pub(super) fn told(&mut self, time: Duration, now: Instant) {
        self.anchor = Some((time, now));
    }

    /// What time it is there, or was when the last sign came, if there was any.
    pub(super) fn at(&self, now: Instant) -> Option<Duration> {
        self.anchor.map(|(time, since)| time + now.saturating_duration_since(since))
    }

    /// How long ago an event was stored that is received `now`. It is at least that late there, which is all that old servers
    /// say; so an age is rather too low than too high.
    pub(super) fn age(&mut self, stored_at: Duration, now: Instant) -> Duration {
        match self.at(now) {
            Some(time) if time >= stored_at => time - stored_at,
            _ => {
                self.anchor = Some((stored_at, now));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1_700_000_000);

    #[tokio::test(start_paused = true)]
    async fn ages_are_by_the_servers_clock_whatever_this_hosts_says() {
        let mut time = ServerTime::default();
        time.told(AT, Instant::now());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(time.age(AT + Duration::from_secs(1), Instant::now()), Duration::from_secs(2));
        assert_eq!(time.age(AT + Duration::from_secs(9), Instant::now()), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_says_the_time_is_known_by_what_it_stores() {
        let mut time = ServerTime::default();
        assert_eq!(time.age(AT, Instant::now()), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(time.age(AT, Instant::now()), Duration::from_secs(60));
        assert_eq!(time.age(AT + Duration::from_secs(90), Instant::now()), Duration::ZERO);
        assert_eq!(time.age(AT, Instant::now()), Duration::from_secs(90));
    }
}
