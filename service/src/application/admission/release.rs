//! Gives session locks back, off the path of anyone who gives them up.
//!
//! A lock is given up in places that cannot wait (a dropped guard, an eviction), and by many sessions at once (a drain). So they
//! are queued and let go in batches. A release is compare-and-delete: coming late or twice does no harm.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::session::{LockOwner, SessionKey};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    application::hub::session::Session,
    config::Config,
    ports::{SessionLocks, log_store_error},
    runtime::backoff::Backoff,
};

/// Locks in one round trip.
const MAX_BATCH: usize = 500;
/// Locks that may wait; past that a lock is left to its time to live, which is short.
const MAX_QUEUED: usize = 65_536;
/// The pauses before a failed batch is tried again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));

enum Order {
    Release(SessionKey, LockOwner),
    Flush(oneshot::Sender<()>),
}

/// Handle to the releaser of a pod.
#[derive(Debug, Clone)]
pub struct Releaser {
    orders: mpsc::Sender<Order>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Release(..) => "Release",
            Self::Flush(_) => "Flush",
        })
    }
}

/// The work of a [`Releaser`].
#[derive(Debug)]
pub(crate) struct ReleaseQueue {
    orders: mpsc::Receiver<Order>,
}

/// A releaser and its queue, which somebody must [run](ReleaseQueue::run).
#[must_use]
pub(crate) fn releaser() -> (Releaser, ReleaseQueue) {
    let (sender, orders) = mpsc::channel(MAX_QUEUED);
    (Releaser { orders: sender }, ReleaseQueue { orders })
}

impl Releaser {
    /// Gives the session's lock up, if it may have it. Never waits.
    pub fn release(&self, session: &Session) {
        if session.may_hold_lock() {
            let order = Order::Release(session.key().clone(), session.owner().clone());
            if self.orders.try_send(order).is_err() {
                tracing::debug!("a session lock is left to its time to live: too many are being released");
            }
        }
    }

    /// Waits until every lock given up before this call has been let go, or given up on.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.orders.send(Order::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

impl ReleaseQueue {
    /// Lets locks go until cancelled. A batch that fails is tried again for the locks' time to live: after that they have gone by
    /// themselves.
    pub(crate) async fn run(&mut self, locks: &Arc<dyn SessionLocks>, config: &watch::Receiver<Arc<Config>>) {
        let mut orders = Vec::with_capacity(MAX_BATCH);
        while self.orders.recv_many(&mut orders, MAX_BATCH).await > 0 {
            let (mut batch, mut flushes) = (Vec::new(), Vec::new());
            for order in orders.drain(..) {
                match order {
                    Order::Release(key, owner) => batch.push((key, owner)),
                    Order::Flush(done) => flushes.push(done),
                }
            }
            let ttl = config.borrow().app.session_ttl;
            let (deadline, mut backoff) = (Instant::now() + ttl, BACKOFF);
            let mut is_told = false;
            while !batch.is_empty()
                && let Err(error) = locks.release(&batch).await
            {
                if Instant::now() >= deadline {
                    log_store_error!(&error, count = batch.len(), "session locks are left to their time to live");
                    break;
                }
                if !std::mem::replace(&mut is_told, true) {
                    log_store_error!(&error, count = batch.len(), "session locks could not be given back; trying again");
                }
                tokio::time::sleep(backoff.pause()).await;
            }
            for done in flushes {
                let _ = done.send(());
            }
        }
    }
}
