//! A value that many may wait for, who are woken in the order in which they began to wait.
//!
//! tokio's `watch` spreads those who wait over several lists by chance, which no simulation can have again. It is as good where
//! one waits.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A value and those who wait for it to change.
#[derive(Debug, Default)]
pub struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy> Watched<T> {
    /// A value that nobody waits for yet.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> T {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it and wakes all who wait; what it was.
    pub fn set(&self, value: T) -> T {
        let before = std::mem::replace(&mut *self.value.lock().unwrap_or_else(PoisonError::into_inner), value);
        self.changed.notify_waiters();
        before
    }

    /// Waits until it is such a value, and returns that. Cancel-safe.
    pub async fn wait_for(&self, is_it: impl Fn(T) -> bool) -> T {
        loop {
            let changed = self.changed.notified();
            let value = self.get();
            if is_it(value) {
                return value;
            }
            changed.await;
        }
    }
}

impl Watched<u64> {
    /// Adds one, for values that only say that something is another.
    pub(crate) fn bump(&self) {
        {
            let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
            *value = value.wrapping_add(1);
        }
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_turn() {
        let (watched, order) = (Watched::new(0_u64), RefCell::new(Vec::new()));
        let waiter = async |waiter| {
            watched.wait_for(|value| value == 2).await;
            order.borrow_mut().push(waiter);
        };
        let setter = async {
            tokio::task::yield_now().await;
            watched.bump();
            tokio::task::yield_now().await;
            assert_eq!((watched.set(2), watched.get()), (1, 2));
        };
        tokio::join!(join_all((0..100).map(waiter)), setter);
        let order = order.into_inner();
        assert!(order.len() == 100 && order.is_sorted(), "{order:?}");
        assert_eq!(watched.wait_for(|value| value == 2).await, 2);
    }
}
