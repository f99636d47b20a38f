//! Time between two batches under load.
//!
//! A batch costs a round trip, syscalls and wake-ups of threads, whatever is in it; for what comes one by itself, that is more
//! than all else that is done for it. When many come, the next batch waits for a moment, so that what comes meanwhile shares all
//! that. When few do, nothing waits.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::fine_timer::FineTimer;

/// So many in a batch say that more are coming.
const BUSY: usize = 8;
/// The pause that a batch has to be followed by, if any.
#[derive(Debug)]
#[must_use]
pub(crate) struct Linger {
    until: Option<Instant>,
}

impl Linger {
    /// For a batch that begins now, with `taken` of the `most` that it could have: `pause` is from its beginning to that of the
    /// next. A full one is followed by none: the next is waiting already.
    pub(crate) fn of(taken: usize, most: usize, pause: Duration) -> Self {
        Self { until: (BUSY..most).contains(&taken).then(|| Instant::now() + pause) }
    }

    /// Is followed by no shorter a pause than this, from now on.
    pub(crate) fn no_shorter_than(self, pause: Duration) -> Self {
        if pause.is_zero() { self } else { Self { until: self.until.max(Some(Instant::now() + pause)) } }
    }

    /// Waits until the next batch may begin, or one to two milliseconds longer. Cancel-safe.
    pub(crate) async fn wait(self) {
        if let Some(until) = self.until {
            sleep_until(until).await;
        }
    }

    /// The same, as exactly as the timer can. Cancel-safe.
    pub(crate) async fn wait_by(self, timer: &FineTimer) {
        if let Some(until) = self.until {
            timer.sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn only_a_batch_that_is_neither_small_nor_full_is_followed_by_a_pause_from_its_beginning_on() {
        let begun = Instant::now();
        for taken in [0, 1, BUSY - 1, 100] {
            Linger::of(taken, 100, PAUSE).wait().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let (one, late) = (Linger::of(BUSY, 100, PAUSE), Linger::of(99, 100, PAUSE));
        one.wait().await;
        assert_eq!(begun.elapsed(), PAUSE);
        tokio::time::advance(PAUSE).await;
        late.wait_by(&FineTimer::of_the_runtime()).await;
        assert_eq!(begun.elapsed(), 2 * PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_to_be_followed_by_a_pause_is_also_where_it_is_full() {
        let begun = Instant::now();
        Linger::of(100, 100, PAUSE).no_shorter_than(2 * PAUSE).wait().await;
        assert_eq!(begun.elapsed(), 2 * PAUSE);
        Linger::of(1, 100, PAUSE).no_shorter_than(Duration::ZERO).wait().await;
        assert_eq!(begun.elapsed(), 2 * PAUSE);
    }
}
