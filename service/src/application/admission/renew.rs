//! Keeps the locks of this pod's sessions: one task for all of them, in pipelined batches.

mod batches;

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::session::SessionKind;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

pub(crate) use self::batches::Batches;
use crate::{
    application::hub::{registry::Hub, session::Session},
    config::Config,
    metrics::Metrics,
    ports::{StoreError, log_store_error},
    runtime::backoff::Backoff,
};

/// A sweep asked for, or one that failed, is not repeated sooner than after the first of these; nor does a fleet sweep in step
/// when the store is back.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(1));

/// Locks in dispute are looked at again after this time.
const DISPUTED_PAUSE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));

/// Renews the locks of all sessions of this pod in batches, and settles what it finds lost.
#[derive(Clone)]
pub struct Renewer {
    /// The sessions.
    pub(crate) hub: Arc<Hub>,
    /// Renews their locks.
    pub(crate) batches: Arc<Batches>,
    /// Asked for when kills or the store's data may have been missed.
    pub(crate) sweep: Arc<Notify>,
    /// Settings in force.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// Counts.
    pub(crate) metrics: Arc<Metrics>,
}

impl Renewer {
    /// Renews every lock each refresh interval, and at once when asked, until cancelled.
    pub async fn run(&self) {
        let (mut began, mut pauses) = (Instant::now(), PAUSES);
        loop {
            let due = began + self.config.borrow().app.ttl_refresh_interval;
            let disputed = self.batches.disputes.sessions();
            let renewed = tokio::select! {
                biased;
                () = self.is_due(due) => {
                    began = Instant::now();
                    self.renew_all().await
                }
                () = tokio::time::sleep(DISPUTED_PAUSE.nth(1)), if !disputed.is_empty() => self.batches.renew(&disputed).await,
            };
            match renewed {
                Ok(()) => pauses.reset(),
                Err(error) => {
                    log_store_error!(&error, "session locks could not be renewed");
                    // Sooner than the next turn: locks are the shorter-lived the longer this takes.
                    self.sweep.notify_one();
                }
            }
            tokio::time::sleep(pauses.pause()).await;
        }
    }

    /// The turn has come, or somebody asks for one.
    async fn is_due(&self, due: Instant) {
        tokio::select! {
            biased;
            () = sleep_until(due) => {}
            () = self.sweep.notified() => {}
        }
    }

    /// Renews every lock once.
    ///
    /// # Errors
    /// When a batch failed; the others have been renewed all the same.
    pub async fn renew_all(&self) -> Result<(), StoreError> {
        let sessions: Vec<Arc<Session>> = self.hub.sessions().into_iter().filter(|session| session.is_locked()).collect();
        self.show_buffers(&sessions);
        self.batches.renew(&sessions).await
    }

    fn show_buffers(&self, sessions: &[Arc<Session>]) {
        let capacity = self.config.borrow().app.websocket_message_buffer_size;
        for kind in SessionKind::ALL {
            let (count, used) = sessions
                .iter()
                .filter(|session| session.kind() == kind)
                .fold((0, 0), |(count, used), session| (count + 1, used + session.mailbox().len()));
            let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            self.metrics.websocket_buffer_used_count.with_label_values(&[kind.as_str()]).set(gauge(used));
            self.metrics.websocket_buffer_capacity.with_label_values(&[kind.as_str()]).set(gauge(count * capacity));
        }
    }
}
