//! Connects whose request is good: how many are opened at a time, and how many wait for that.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::application::admission::connect::{ConnectError, Unavailable};

/// Sessions that are opened at a time: what the store's connections can have under way. More at a time would only make each
/// slower.
const AT_ONCE: usize = 1024;
/// Connects that wait for their turn: in a storm of reconnects, waiting beats a refusal that only makes the storm last. Each
/// costs about what its socket will.
const WAITING: usize = 8192;
/// The longest wait for a turn: a client that waits longer has given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// The turns of connects.
#[derive(Debug)]
pub(crate) struct Connecting {
    turns: Semaphore,
    waiting: AtomicUsize,
    most: usize,
    /// Why the last connect that ended found no store.
    unavailable: Mutex<Option<Arc<Unavailable>>>,
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
        Self { turns: Semaphore::new(at_once), waiting: AtomicUsize::new(0), most, unavailable: Mutex::default() }
    }

    /// Waits for a turn, in the order of coming. While the store is away nobody waits: those who have a turn find out when it is
    /// back.
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
        let before = self.unavailable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        before.map_or(Ok(()), |before| Err(ConnectError::StoreUnavailable(Unavailable::NotAsked(before))))
    }
}

impl Turn<'_> {
    /// Ends the turn.
    pub(crate) fn end<T>(self, outcome: &Result<T, ConnectError>) {
        let why = outcome.as_ref().err().and_then(ConnectError::unavailable).filter(|why| why.is_of_all());
        let why = why.map(|why| Arc::new(why.clone()));
        *self.connecting.unavailable.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ports::{KeyKind, StoreError},
        telemetry::Chain,
    };

    fn away() -> Result<(), ConnectError> {
        Err(StoreError::unreachable("cut").into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_own_key_is_refused_costs_nobody_else_the_wait() {
        let connecting = Connecting::new(1, 100);
        let first = connecting.turn().await.unwrap();
        let mut waiting = std::pin::pin!(connecting.turn());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        first.end(&Err::<(), _>(StoreError::wrong_type(KeyKind::Lock, "WRONGTYPE").into()));
        assert!(waiting.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_come_in_their_order_and_within_bounds() {
        let connecting = Connecting::new(1, 2);
        let first = connecting.turn().await.unwrap();
        let (second, third) = (connecting.turn(), connecting.turn());
        let (mut second, mut third) = (std::pin::pin!(second), std::pin::pin!(third));
        assert!(futures_util::poll!(second.as_mut()).is_pending() && futures_util::poll!(third.as_mut()).is_pending());
        assert!(matches!(connecting.turn().await, Err(ConnectError::Busy)), "two wait already");
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
        first.end(&away());
        let began = tokio::time::Instant::now();
        let refused = waiting.await.into_iter().filter(|turn| matches!(turn, Err(ConnectError::StoreUnavailable(_)))).count();
        assert_eq!((refused, began.elapsed()), (50, Duration::ZERO), "all who waited are told at once");
        // Who comes with a turn free tries, and so it is found out that the store is back.
        let probe = connecting.turn().await.unwrap();
        let refused = connecting.turn().await.unwrap_err();
        assert!(Chain(&refused).to_string().ends_with("cut"), "{}", Chain(&refused));
        probe.end(&Ok(()));
        drop(connecting.turn().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_has_an_end() {
        let connecting = Connecting::new(1, 100);
        let _first = connecting.turn().await.unwrap();
        assert!(matches!(connecting.turn().await, Err(ConnectError::Busy)));
    }
}
