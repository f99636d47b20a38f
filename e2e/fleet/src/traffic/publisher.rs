//! Stores numbered events and keeps a record of each.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use async_nats::{
    HeaderMap,
    jetstream::{self, Context},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

use super::ledger::Published;
use crate::identity::Subject;

/// Longest wait for the stream's confirmation; then the same event is stored again under the same id, which the stream
/// recognises.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// Between two attempts to store an event.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Events of one agent that wait for their confirmation at most.
const UNCONFIRMED: usize = 16;
/// A publisher that is late by less than this, as the machine is busy, makes up for it.
const ARREARS: Duration = Duration::from_secs(1);

/// A connection to publish on; clones share it, its numbers and its records.
#[derive(Clone)]
pub struct Publisher {
    context: Context,
    next: Arc<AtomicU64>,
    records: Arc<Mutex<Vec<Published>>>,
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    /// When it can't.
    pub async fn connect(url: &str) -> Result<Self> {
        let options = async_nats::ConnectOptions::new()
            // An outage of NATS is a fault that suites make: it is ridden out.
            .reconnect_delay_callback(|_| BACK_OFF)
            .connection_timeout(Duration::from_secs(2))
            .ping_interval(Duration::from_secs(2));
        let client = options.connect(url).await.context("no connection to NATS")?;
        Ok(Self { context: jetstream::new(client), next: Arc::default(), records: Arc::default() })
    }

    /// Stores an event, however many attempts it takes, and returns its record.
    pub async fn store(&self, subject: &Subject) -> Published {
        self.store_padded(subject, 0).await
    }

    /// The same with so many bytes more in it.
    pub async fn store_padded(&self, subject: &Subject, bytes: usize) -> Published {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let payload = serde_json::json!({
            "event_id": format!("event-{number}"), "n": number, "subject": subject.text(), "company_id": subject.company,
            "agent_id": subject.agent, "row_data": {"text": "Lorem ipsum dolor sit amet, consectetur adipiscing elit."},
            "padding": ".".repeat(bytes),
        });
        let (payload, started) = (payload.to_string(), Instant::now());
        let seq = loop {
            if let Some(seq) = self.attempt(number, subject.text(), payload.clone()).await {
                break seq;
            }
            sleep(BACK_OFF).await;
        };
        let record = Published { number, subject: subject.clone(), seq, started, stored: Instant::now() };
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        record
    }

    async fn attempt(&self, number: u64, subject: String, payload: String) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", number.to_string());
        let confirmed = async {
            let confirmation = self.context.publish_with_headers(subject, headers, payload.into()).await.ok()?;
            confirmation.await.ok()
        };
        Some(timeout(CONFIRMATION, confirmed).await.ok()??.sequence)
    }

    /// Stores what is no event: these bytes on this subject.
    ///
    /// # Errors
    /// When it is not stored at once.
    pub async fn store_raw(&self, subject: &str, payload: &'static [u8]) -> Result<u64> {
        let confirmation = self.context.publish(subject.to_owned(), payload.into()).await?;
        Ok(confirmation.await?.sequence)
    }

    /// Deletes the durable consumer, as an operator's slip does.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn delete_consumer(&self) -> Result<()> {
        self.context.delete_consumer_from_stream("ws_fanout", "wa_stream").await.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(())
    }

    /// Events of the durable consumer that are unsettled, and that nobody has taken.
    ///
    /// # Errors
    /// When NATS can't say.
    pub(crate) async fn backlog(&self) -> Result<(usize, u64)> {
        let stream = self.context.get_stream("wa_stream").await.map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut consumer: jetstream::consumer::PullConsumer =
            stream.get_consumer("ws_fanout").await.map_err(|error| anyhow::anyhow!("{error}"))?;
        let info = consumer.info().await?;
        Ok((info.num_ack_pending, info.num_pending))
    }

    /// The records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Published> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores an event of each of the `subjects` in turn at every `period`, until `stopped`, without waiting for one before the
    /// next. While NATS is away so many and no more wait to be stored, and the rate afterwards is as before: no burst makes up
    /// for an outage.
    pub(crate) async fn keep_storing(self, subjects: Vec<Subject>, period: Duration, mut stopped: watch::Receiver<bool>) {
        let mut ticks = interval(period);
        let mut storing = JoinSet::new();
        for subject in subjects.iter().cycle() {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => break,
                due = ticks.tick() => {
                    if due.elapsed() > ARREARS {
                        ticks.reset();
                    }
                }
            }
            while storing.len() >= UNCONFIRMED {
                storing.join_next().await;
            }
            let (publisher, subject) = (self.clone(), subject.clone());
            storing.spawn(async move { publisher.store(&subject).await });
        }
        storing.join_all().await;
    }
}

/// Publishers at work.
pub(crate) struct Storing {
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) tasks: JoinSet<()>,
}
