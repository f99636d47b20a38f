//! A timer that is finer than the runtime's.
//!
//! The runtime's timers end at whole milliseconds, and it sleeps for whole milliseconds, each rounded up: whoever waits for one there waits for one to two and a half.
//! For the one loop that every event passes, that is most of an event's way.

use std::{io, time::Duration};

use rustix::{
    io::Errno,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use tokio::{net::unix::pipe::Receiver, time::Instant};

/// A timer for one wait at a time.
///
/// For the runtime the descriptor is the reading end of a pipe: what can be waited for and read, and the one such type that can be made of any descriptor in safe Rust.
#[derive(Debug)]
pub struct FineTimer(Option<Receiver>);

impl FineTimer {
    /// One of the kernel's (`timerfd_create(2)`); the runtime's if there is none to be had. Has to be called within a runtime, and is of use within that one only.
    #[must_use]
    pub fn of_the_kernel() -> Self {
        let timer = || -> io::Result<_> {
            Receiver::from_owned_fd_unchecked(timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
            )?)
        };
        match timer() {
            Ok(timer) => Self(Some(timer)),
            Err(error) => {
                tracing::warn!(%error, "there is no fine timer; events may be a millisecond or two later under load");
                Self::of_the_runtime()
            }
        }
    }

    /// None finer than the runtime's. It stands still where time is paused.
    #[must_use]
    pub fn of_the_runtime() -> Self {
        Self(None)
    }

    /// Waits until `deadline`. Cancel-safe.
    pub async fn sleep_until(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if let Some(timer) = &self.0
            && set(timer, left).is_ok()
            && expired(timer).await.is_ok()
        {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

/// Begins a wait, and ends the one before, whose end is forgotten even if it was not read.
fn set(timer: &Receiver, time: Duration) -> Result<(), Errno> {
    let once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let end = Timespec::try_from(time).map_err(|_| Errno::INVAL)?;
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: once, it_value: end })?;
    Ok(())
}

async fn expired(timer: &Receiver) -> io::Result<()> {
    let mut times = [0; size_of::<u64>()];
    loop {
        timer.readable().await?;
        match timer.try_read(&mut times) {
            // What the runtime had heard of was the end of the wait before.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read.map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(200);

    #[tokio::test]
    async fn a_wait_for_a_part_of_a_millisecond_is_not_a_millisecond_long() {
        let timer = FineTimer::of_the_kernel();
        let mut shortest = Duration::MAX;
        // A machine that is busy makes some of them longer.
        for _ in 0..100 {
            let begun = Instant::now();
            timer.sleep_until(begun + SHORT).await;
            let waited = begun.elapsed();
            assert!(waited >= SHORT, "{waited:?}");
            shortest = shortest.min(waited);
        }
        assert!(shortest < Duration::from_micros(900), "{shortest:?}");
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_end_the_next() {
        let timer = FineTimer::of_the_kernel();
        for polls in 0..20 {
            let begun = Instant::now();
            {
                let mut given_up = std::pin::pin!(timer.sleep_until(begun + SHORT));
                assert!(futures_util::poll!(&mut given_up).is_pending());
                // Sometimes its end has come by then, and sometimes the runtime has heard of it.
                while begun.elapsed() < SHORT * polls / 10 {
                    tokio::task::yield_now().await;
                }
            }
            let begun = Instant::now();
            timer.sleep_until(begun + 2 * SHORT).await;
            assert!(begun.elapsed() >= 2 * SHORT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_time_is_paused_the_runtimes_ends_at_its_time() {
        let (timer, begun) = (FineTimer::of_the_runtime(), Instant::now());
        for wait in [Duration::from_secs(3600), Duration::ZERO] {
            timer.sleep_until(begun + wait).await;
            assert_eq!(begun.elapsed(), Duration::from_secs(3600));
        }
    }
}
