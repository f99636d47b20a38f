//! The wall clock, in the one place that may read it.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

thread_local! {
    /// The time that it was at some moment of tokio's clock.
    static VIRTUAL: Cell<Option<(Duration, Instant)>> = const { Cell::new(None) };
}

/// Time since the Unix epoch.
#[must_use]
pub fn now() -> Duration {
    VIRTUAL.get().map_or_else(system_time, |(begun_at, begun)| begun_at + begun.elapsed())
}

/// The moment that schedules count from which are common to the process; of a simulation, its begin.
#[must_use]
pub(crate) fn start() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    VIRTUAL.get().map_or_else(|| *START, |(_, begun)| begun)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn system_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// While it lives, the wall clock of this thread goes with tokio's, which may be paused: for simulations, in which two runs see
/// the same times.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Virtual(PhantomData<*const ()>);

impl Virtual {
    /// It is `at` now, since the Unix epoch. Must be called in a runtime, and not outlive it.
    pub fn begin(at: Duration) -> Self {
        VIRTUAL.set(Some((at, Instant::now())));
        Self(PhantomData)
    }
}

impl Drop for Virtual {
    fn drop(&mut self) {
        VIRTUAL.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_wall_clock_goes_with_the_paused_one_until_it_ends() {
        let (begun_at, hour) = (Duration::from_secs(1_000_000), Duration::from_secs(3600));
        let clock = Virtual::begin(begun_at);
        tokio::time::advance(hour).await;
        assert_eq!(now(), begun_at + hour);
        drop(clock);
        assert!(now() > begun_at + 2 * hour);
    }
}
