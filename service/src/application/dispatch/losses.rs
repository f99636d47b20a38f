//! Says in the log that events were given up: at once, and then once a second for all that follow.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two such lines.
const PERIOD: Duration = Duration::from_secs(1);

/// Events given up and not told yet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    events: u64,
    seqs: Option<(u64, u64)>,
    told_at: Option<Instant>,
}

impl Losses {
    pub(super) fn note(&mut self, seq: u64) {
        self.events += 1;
        self.seqs = Some(self.seqs.map_or((seq, seq), |(first, last)| (first.min(seq), last.max(seq))));
    }

    /// When there is something to tell; never, if there is nothing.
    pub(super) async fn due(&self) {
        match self.told_at {
            _ if self.events == 0 => std::future::pending().await,
            Some(told_at) => tokio::time::sleep_until(told_at + PERIOD).await,
            None => {}
        }
    }

    pub(super) fn tell(&mut self) {
        tracing::warn!(
            events = self.events,
            event.first_seq = self.seqs.map(|(first, _)| first),
            event.last_seq = self.seqs.map(|(_, last)| last),
            "events are given up: a pod that lives could not be reached in time; its sessions will be told of a gap"
        );
        *self = Self { told_at: Some(Instant::now()), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_loss_is_told_at_once_and_what_follows_a_second_later() {
        let (begun, mut losses) = (Instant::now(), Losses::default());
        assert!(losses.due().now_or_never().is_none());
        losses.note(7);
        losses.due().await;
        losses.tell();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        (8..300).for_each(|seq| losses.note(seq));
        losses.due().await;
        assert_eq!((begun.elapsed(), losses.events, losses.seqs), (PERIOD, 292, Some((8, 299))));
    }
}
