//! Connects whose request is good: how many are opened at a time, and how many wait for that.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::application::admission::connect::ConnectError;

/// Sessions that are opened at a time: what the store's connections can have under way. More at a time would only make each slower.
const AT_ONCE: usize = 1024;
/// Connects that wait for their turn: in a storm of reconnects, waiting beats a refusal that only makes the storm last. Each costs about what its socket will.
const WAITING: usize = 8192;
/// The longest wait for a turn: a client that waits longer has given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The turns of connects.
#[derive(Debug)]
pub(crate) struct Connecting {
    turns: Semaphore,
    waiting: AtomicUsize,
    most: usize,
    /// The last connect that ended found no store.
    store_is_away: AtomicBool,
}

/// A connect's turn.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    connecting: &'a Connecting,
}

/// One that waits.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Connecting {
    fn default() -> Self {
        Self::new(AT_ONCE, WAITING)
    }
}

impl Connecting {
    fn new(at_once: usize, most: usize) -> Self {
        Self { turns: Semaphore::new(at_once), waiting: AtomicUsize::new(0), most, store_is_away: AtomicBool::new(false) }
    }

    /// Waits for a turn, in the order of coming. While the store is away nobody waits: those who have a turn find out when it is back.
    ///
    /// # Errors
    /// When too many wait, or the wait was too long, or the store is away.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, ConnectError> {
        if let Ok(permit) = self.turns.try_acquire() {
            return Ok(Turn { _permit: permit, connecting: self });
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiter = Waiter(&self.waiting);
        self.is_worth_it()?;
        if before >= self.most {
            return Err(ConnectError::Busy);
        }
        let acquired = timeout(PATIENCE, self.turns.acquire()).await;
        self.is_worth_it()?;
        match acquired {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, connecting: self }),
            Ok(Err(_)) | Err(_) => Err(ConnectError::Busy),
        }
    }

    fn is_worth_it(&self) -> Result<(), ConnectError> {
        if self.store_is_away.load(Ordering::Relaxed) { Err(ConnectError::StoreUnavailable) } else { Ok(()) }
    }
}

impl Turn<'_> {
    /// Ends the turn.
    pub(crate) fn end<T>(self, outcome: &Result<T, ConnectError>) {
        let away = matches!(outcome, Err(ConnectError::StoreUnavailable));
        self.connecting.store_is_away.store(away, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_come_in_their_order_and_within_bounds() {
        let connecting = Connecting::new(1, 2);
        let first = connecting.turn().await.unwrap();
        let (second, third) = (connecting.turn(), connecting.turn());
        let (mut second, mut third) = (std::pin::pin!(second), std::pin::pin!(third));
        assert!(futures_util::poll!(second.as_mut()).is_pending() && futures_util::poll!(third.as_mut()).is_pending());
        assert_eq!(connecting.turn().await.unwrap_err(), ConnectError::Busy, "two wait already");
        first.end(&Ok(()));
        let second = second.await.unwrap();
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        second.end(&Ok(()));
        third.await.unwrap().end(&Ok(()));
        assert_eq!(connecting.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_store_that_is_away() {
        let connecting = Connecting::new(1, 100);
        let first = connecting.turn().await.unwrap();
        let waiting: Vec<_> = (0..50).map(|_| connecting.turn()).collect();
        let mut waiting = std::pin::pin!(futures_util::future::join_all(waiting));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        first.end(&Err::<(), _>(ConnectError::StoreUnavailable));
        let began = tokio::time::Instant::now();
        let refused = waiting.await.into_iter().filter(|turn| matches!(turn, Err(ConnectError::StoreUnavailable))).count();
        assert_eq!((refused, began.elapsed()), (50, Duration::ZERO), "all who waited are told at once");
        // Who comes with a turn free tries, and so it is found out that the store is back.
        let probe = connecting.turn().await.unwrap();
        assert_eq!(connecting.turn().await.unwrap_err(), ConnectError::StoreUnavailable);
        probe.end(&Ok(()));
        drop(connecting.turn().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_has_an_end() {
        let connecting = Connecting::new(1, 100);
        let _first = connecting.turn().await.unwrap();
        assert_eq!(connecting.turn().await.unwrap_err(), ConnectError::Busy);
    }
}
