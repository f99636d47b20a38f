//! The event source of a pod.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, jetstream::ContextBuilder};
use async_trait::async_trait;
use daisi_ws_domain::gap::Gap;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    bind::{self, BindError, ConsumerDefaults, Known},
    buffer::{Buffer, ConsumerLink},
    connect::{Happening, NAME, NatsStartError, Target},
    progress::Progress,
    puller,
    settle::publish_settlements,
    shared::Shared,
    trouble::{Away, Trouble},
    wire,
};
use crate::{
    config::Nats,
    ports::{AckToken, EventSource, RawEvent, Settlement, SourceError, SourceLag, SourceLimits},
    runtime::lifecycle::Tasks,
    telemetry::Chain,
};

/// Longest wait for an answer of the JetStream API.
const API_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for an error that came before an answer.
const ERROR_TIMEOUT: Duration = Duration::from_millis(20);
/// A pull tolerates a link that is down for this long before it says so.
const PULL_PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait until everything is given back: a command, what is on its way, the settlements.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// JetStream as an event source: one durable pull consumer, shared by every pod that names the same one.
///
/// One supervised task asks for events ahead of the pulls, about as many as the last pull took; it ends with the source, which is
/// closed when it is dropped. Outages of any length are ridden out.
///
/// Nothing here looks at the soft shutdown token: a pod that drains calls `close` when it stops pulling, and can still settle
/// after that.
pub struct NatsSource {
    shared: Arc<Shared>,
    hard: CancellationToken,
}

impl NatsSource {
    /// Connects, finds or makes the stream and the consumer, and starts to fetch once `pull` is called.
    ///
    /// # Errors
    /// When the configuration can't be right, the consumer is a push consumer, or JetStream refuses for good; and, with
    /// `nats.retry_on_failed_connect` off, when NATS or JetStream is not there. With it on, that is only logged, and the source
    /// connects later.
    pub async fn connect(nats: &Nats, defaults: ConsumerDefaults, tasks: &Tasks) -> Result<Self, NatsStartError> {
        let target = Target::read(nats).await?;
        let changed = Arc::new(Notify::new());
        let trouble = Arc::new(Trouble::new(nats));
        let client = first_connect(&target, nats.retry_on_failed_connect, &changed, &trouble).await?;
        let js = ContextBuilder::new().timeout(API_TIMEOUT).build(client.clone());
        let limits = SourceLimits { ack_wait: defaults.ack_wait, max_ack_pending: defaults.max_ack_pending };
        let shared = Arc::new(Shared {
            client,
            js,
            nats: nats.clone(),
            defaults,
            known: Known::default(),
            buffer: Buffer::new(limits),
            trouble,
            changed,
            held: watch::Sender::new(false),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        });
        if shared.is_connected() {
            first_bind(&shared).await?;
        }
        let for_task = Arc::clone(&shared);
        tasks.supervise("nats-pull", move || puller::run(Arc::clone(&for_task)));
        Ok(Self { shared, hard: tasks.shutdown().hard.clone() })
    }
}

async fn first_connect(
    target: &Target,
    retry: bool,
    changed: &Arc<Notify>,
    trouble: &Arc<Trouble>,
) -> Result<Client, NatsStartError> {
    let on_event = || {
        let (changed, trouble) = (Arc::clone(changed), Arc::clone(trouble));
        move |happening| {
            match happening {
                Happening::Error(text) => return trouble.error(&text),
                Happening::Failed(text) => return trouble.refused(&text),
                Happening::Connected => trouble.connected(),
                Happening::Disconnected => {}
            }
            changed.notify_one();
        }
    };
    match target.connect(NAME, false, on_event()).await {
        Err(error) if retry => {
            tracing::warn!(error = %Chain(&error), "NATS can't be reached yet; the pod starts and goes on trying");
            target.connect(NAME, true, on_event()).await
        }
        first => first,
    }
}

/// Finds out at the start what would otherwise be a log line later. The task binds again for itself.
async fn first_bind(shared: &Shared) -> Result<(), NatsStartError> {
    let nats = &shared.nats;
    let (stream, consumer) = (nats.stream_name.clone(), nats.consumer_name.clone());
    let bound = async {
        let binding = bind::bind(&shared.js, nats, shared.defaults, &shared.known).await?;
        ask_for_an_answer(shared).await.map(|()| binding)
    };
    let bound = tokio::select! {
        biased;
        denied = shared.trouble.denial() => return Err(NatsStartError::Denied(denied)),
        bound = bound => bound,
    };
    match bound {
        Ok(binding) => {
            // The pod has no session yet that could miss anything.
            let _ = shared.known.progress(Progress::take_missed);
            shared.known.warn(&binding.warnings);
            shared.buffer.set_limits(binding.limits);
            shared.buffer.set_link(ConsumerLink::Up);
            let (stream, consumer) = (&nats.stream_name, &nats.consumer_name);
            tracing::info!(
                nats.stream = %stream, nats.consumer = %consumer, nats.made = binding.made,
                "the event stream is there"
            );
            Ok(())
        }
        Err(BindError::Push) => Err(NatsStartError::PushConsumer { stream, consumer }),
        Err(BindError::Unfit(reason)) => Err(NatsStartError::Unfit { stream, consumer, reason }),
        Err(BindError::Refused(step)) => Err(NatsStartError::Refused(step)),
        Err(BindError::Unavailable(step)) if nats.retry_on_failed_connect => {
            tracing::warn!(reason = %Chain(&step), "JetStream is not there yet; the pod starts and goes on trying");
            Ok(())
        }
        Err(BindError::Unavailable(step)) => Err(NatsStartError::Unavailable(step)),
    }
}

/// Only an answer shows that events will come, and that they can be settled: a permission that is missing shows as silence.
async fn ask_for_an_answer(shared: &Shared) -> Result<(), BindError> {
    let Shared { client, nats, trouble, .. } = shared;
    const WHAT: &str = "ask for events";
    let nothing = wire::settlement(Settlement::Extend);
    client.publish(wire::settlement_of_nothing(nats), nothing).await.map_err(|error| BindError::unavailable(WHAT, error))?;
    let answer = timeout(API_TIMEOUT, client.request(wire::next_subject(nats), wire::Probe::body())).await;
    let answer =
        answer.map_err(|_| BindError::unavailable(WHAT, Away::NoAnswer))?.map_err(|error| BindError::unavailable(WHAT, error))?;
    if answer.status.is_some_and(|status| status.as_u16() == 400) {
        let reason = answer.description.unwrap_or_default();
        return Err(BindError::Unfit(format!(
            "the consumer takes no plain requests for events ({reason}): make it anew without what they lack"
        )));
    }
    // The server's errors come before its answers, and by another task.
    let _ = timeout(ERROR_TIMEOUT, trouble.denial()).await;
    Ok(())
}

impl Drop for NatsSource {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

#[async_trait]
impl EventSource for NatsSource {
    async fn pull(&self, max: usize) -> Result<Vec<RawEvent>, SourceError> {
        let buffer = &self.shared.buffer;
        let mut patience = Instant::now() + PULL_PATIENCE;
        loop {
            if self.shared.closing.is_cancelled() {
                return Err(SourceError::Closed);
            }
            let events = buffer.take(max.max(1));
            if !events.is_empty() {
                return Ok(events);
            }
            let waited = tokio::select! {
                () = self.shared.closing.cancelled() => continue,
                waited = timeout_at(patience, buffer.ready()) => waited,
            };
            if waited.is_err() {
                match self.trouble() {
                    Some(error) => return Err(error),
                    None => patience = Instant::now() + PULL_PATIENCE,
                }
            }
        }
    }

    async fn settle(&self, settlements: Vec<(AckToken, Settlement)>) -> Result<(), SourceError> {
        if settlements.is_empty() {
            return Ok(());
        }
        publish_settlements(&self.shared.client, settlements).await
    }

    async fn close(&self) {
        self.shared.closing.cancel();
        tokio::select! {
            _ = timeout(CLOSE_TIMEOUT, self.shared.closed.cancelled()) => {}
            // The task is gone, and nobody gives anything back any more.
            () = self.hard.cancelled() => {}
        }
    }

    fn hold(&self, hold: bool) {
        self.shared.held.send_if_modified(|held| std::mem::replace(held, hold) != hold);
    }

    async fn lag(&self) -> Result<SourceLag, SourceError> {
        let Shared { js, nats, known, trouble, .. } = self.shared.as_ref();
        let answer = timeout(API_TIMEOUT, bind::read_consumer(js, nats, known)).await;
        let reading = answer
            .map_err(|_| SourceError::unreachable(Away::NoAnswer))?
            .map_err(|error| trouble.no_binding(error))?
            .ok_or_else(|| SourceError::refused(Away::NoConsumer))?;
        let settled = known.progress(|progress| progress.settled());
        Ok(SourceLag { pending: reading.num_pending, ack_pending: reading.num_ack_pending, settled })
    }

    fn take_missed(&self) -> Option<Gap> {
        self.shared.known.progress(Progress::take_missed)
    }

    fn limits(&self) -> SourceLimits {
        self.shared.buffer.limits()
    }

    fn trouble(&self) -> Option<SourceError> {
        match self.shared.buffer.link() {
            ConsumerLink::Down(error) => Some(error),
            ConsumerLink::Up if !self.shared.is_connected() => Some(self.shared.trouble.reason(Away::NoConnection)),
            ConsumerLink::Up => None,
        }
    }
}
