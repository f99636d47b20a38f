//! A timer that is finer than the runtime's.
//!
//! The runtime's timers end at whole milliseconds, and it sleeps for whole milliseconds, each rounded up: anyone who waits for
//! one there waits for one to two and a half. For the one loop that every event passes, that is most of an event's way.

use std::io;

use tokio::time::Instant;

use self::kernel::KernelTimer;

/// A timer for one wait at a time.
#[derive(Debug)]
pub struct FineTimer(Option<KernelTimer>);

impl FineTimer {
    /// One of the kernel's (`timerfd_create(2)`); the runtime's if there is none to be had, as on systems other than Linux. Has
    /// to be called within a runtime, and is of use within that one only.
    #[must_use]
    pub(crate) fn of_the_kernel() -> Self {
        Self::or_of_the_runtime(KernelTimer::new())
    }

    fn or_of_the_runtime(timer: io::Result<KernelTimer>) -> Self {
        match timer {
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

    /// Waits until `deadline`, finer than a timer of the runtime where the system has one. Cancel-safe.
    pub async fn sleep_until(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if let Some(timer) = &self.0
            && timer.wait(left).await.is_ok()
        {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::{io, os::fd::OwnedFd, time::Duration};

    use rustix::{
        io::Errno,
        time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
    };
    use tokio::io::{Interest, unix::AsyncFd};

    /// A timer that the runtime's reactor hears of.
    #[derive(Debug)]
    pub(super) struct KernelTimer(AsyncFd<OwnedFd>);

    impl KernelTimer {
        pub(super) fn new() -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            #[expect(
                deprecated,
                reason = "it is unsound for descriptors that others close; this one is owned, and its successor is unsafe"
            )]
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        /// Waits so long. A wait before it that was given up is over, and its end is forgotten even if it was not read.
        pub(super) async fn wait(&self, time: Duration) -> io::Result<()> {
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let end = Timespec::try_from(time).map_err(|_| Errno::INVAL)?;
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: once, it_value: end })?;
            let mut times = [0; size_of::<u64>()];
            loop {
                let mut ready = self.0.readable().await?;
                // That it would block is no answer: what the runtime had heard of was the end of the wait before.
                if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut times)?)) {
                    return read.map(|_| ());
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::{convert::Infallible, io, time::Duration};

    /// There is none.
    #[derive(Debug)]
    pub(super) struct KernelTimer(Infallible);

    impl KernelTimer {
        pub(super) fn new() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) async fn wait(&self, _: Duration) -> io::Result<()> {
            match self.0 {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SHORT: Duration = Duration::from_micros(200);

    #[cfg(target_os = "linux")]
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
    async fn where_the_kernel_has_none_the_runtimes_is_waited_for() {
        let timer = FineTimer::or_of_the_runtime(Err(io::ErrorKind::Unsupported.into()));
        let begun = Instant::now();
        timer.sleep_until(begun + Duration::from_secs(60)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
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
