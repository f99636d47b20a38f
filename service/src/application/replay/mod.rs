//! Reading the stream again for sessions: for those that resume, and for those that lack something.
//!
//! So many are read for by route at a time; the others wait their turn. What is asked for the same route in one moment is read
//! once, and where many wait, so is the stream itself, for all of them.

mod mending;
mod resume;
mod shared_reads;
mod spans;
#[cfg(test)]
mod tests;
mod window;

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{event::StreamId, route::RouteKey};
use futures_util::future::try_join_all;
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::{sleep, timeout},
};

pub(crate) use self::mending::{Mended, Mending};
use self::{
    shared_reads::SharedReads,
    spans::{Spans, Waiting, Want},
};
use super::hub::{memory::Memory, prepared_message::PreparedMessage};
use crate::{
    config::Config,
    metrics::{
        Metrics,
        labels::{ReadBy, ReplayCause},
    },
    ports::{ReadRequest, Replay, ReplayError},
    telemetry::Chain,
};

/// Resumes for each gap that is read for at a time: a pod that was frozen has one for every session.
const RESUMES_A_MEND: usize = 4;
/// How often it is looked how far back the stream goes.
const WINDOW_PERIOD: Duration = Duration::from_secs(15);
/// So close to its beginning, a stream may let go of what is being read.
const NEAR_THE_EDGE: u64 = 100_000;

/// Where many wait, or a window is near, one who comes waits so long before a read by route: so many more may come that all are
/// read for at once.
const LULL: Duration = Duration::from_millis(20);

/// After so long, a stream may have let go of what was not near its beginning.
const LONG_AGO: Duration = Duration::from_secs(1);

/// The longest wait for an answer was over.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no answer within {0:?}")]
struct TookTooLong(Duration);

/// Events for one session, as read.
#[derive(Debug, Default)]
struct Part {
    /// In ascending order.
    events: Vec<Arc<PreparedMessage>>,
    /// None is left out up to here.
    through: u64,
}

/// What is to be read for one session.
#[derive(Debug, Clone, Copy)]
struct Span<'a> {
    routes: &'a [RouteKey],
    stream: StreamId,
    after: u64,
    upto: u64,
    max_events: usize,
    max_bytes: usize,
}

/// Reads for sessions. One a pod.
pub struct Replayer {
    replay: Arc<dyn Replay>,
    spans: Arc<Spans>,
    reads: SharedReads,
    resumes: Semaphore,
    mends: Semaphore,
    config: watch::Receiver<Arc<Config>>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Replayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayer").finish_non_exhaustive()
    }
}

impl Replayer {
    /// Reads from there; events that are read count in `memory`.
    #[must_use]
    pub fn new(
        replay: Arc<dyn Replay>,
        memory: Arc<Memory>,
        config: watch::Receiver<Arc<Config>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (places, prefix) = {
            let config = config.borrow();
            (config.resume.max_in_flight, config.nats.subject_prefix.clone())
        };
        let spans = Spans::new(Arc::clone(&replay), prefix.clone(), Arc::clone(&memory), config.clone());
        let spans = Arc::new(spans);
        Self {
            reads: SharedReads::new(Arc::clone(&replay), Arc::clone(&spans), prefix, memory, Arc::clone(&metrics)),
            spans,
            replay,
            resumes: Semaphore::new(places),
            mends: Semaphore::new(places.div_ceil(RESUMES_A_MEND)),
            config,
            metrics,
        }
    }

    /// Shows how far back the stream goes, again and again.
    pub(crate) async fn watch_window(&self) {
        loop {
            match self.replay.bounds().await {
                Ok(bounds) => {
                    let events = (bounds.last + 1).saturating_sub(bounds.first);
                    self.metrics.stream_window_events.set(i64::try_from(events).unwrap_or(i64::MAX));
                    self.metrics.stream_window_seconds.set(bounds.window.unwrap_or_default().as_secs_f64());
                    self.metrics.stream_full.set(i64::from(bounds.first > 1));
                }
                Err(error) => tracing::debug!(error = %Chain(&error), "how far back the stream goes is not known"),
            }
            sleep(WINDOW_PERIOD).await;
        }
    }

    /// Reads the stream for all who wait, where they are many.
    pub(crate) async fn read_spans(&self) {
        self.spans.run().await;
    }

    /// Waits for a turn: until the window has what is wanted, or there is a place to read by route.
    async fn turn<'a>(&'a self, places: &'a Semaphore, why: ReplayCause, want: Want) -> Turn<'a> {
        let mut waiting = self.spans.wait(want);
        let permit = if want.after < want.upto {
            tokio::select! {
                biased;
                () = waiting.held() => None,
                permit = place(places, &waiting) => permit,
            }
        } else {
            None
        };
        waiting.wait_no_more();
        let in_flight = self.metrics.replays_in_flight.with_label_values(&[why.as_str()]);
        in_flight.inc();
        Turn { permit, places, in_flight, _counted: waiting }
    }

    async fn within<T>(&self, time: Duration, reading: impl Future<Output = Result<T, ReplayError>>) -> Result<T, ReplayError> {
        timeout(time, reading).await.unwrap_or_else(|_| Err(ReplayError::unreachable(TookTooLong(time))))
    }

    /// Reads events of all routes that `wants` lets through, as many as one may have.
    async fn read(&self, turn: &mut Turn<'_>, span: Span<'_>, wants: impl Fn(u64) -> bool) -> Result<Part, ReplayError> {
        if span.after >= span.upto {
            return Ok(Part { events: Vec::new(), through: span.upto });
        }
        if turn.permit.is_none() {
            let read = span.routes.iter().map(|route| self.read_route(route, span, ReadBy::Window));
            let parts: Option<Vec<Part>> = try_join_all(read).await?.into_iter().collect();
            if let Some(parts) = parts {
                return Ok(merge(parts, &span, wants));
            }
            turn.permit = turn.places.acquire().await.ok();
        }
        let read = span.routes.iter().map(|route| self.read_route(route, span, ReadBy::Route));
        Ok(merge(try_join_all(read).await?.into_iter().flatten().collect(), &span, wants))
    }

    /// Reads events of a route; `None` if the window is to have them and does not.
    async fn read_route(&self, route: &RouteKey, span: Span<'_>, by: ReadBy) -> Result<Option<Part>, ReplayError> {
        let request = ReadRequest {
            route: route.clone(),
            after: span.after,
            upto: span.upto,
            // One more shows that it is too much.
            max_events: span.max_events.saturating_add(1),
            max_bytes: span.max_bytes.saturating_add(1),
        };
        loop {
            let stretch = self.reads.read(&request, span.stream, by).await?;
            let through = stretch.through.min(span.upto);
            // Others may have wanted so much from so far back that it has not come to what is wanted here.
            if through > span.after {
                let events = stretch.events.iter().filter(|event| event.seq > span.after && event.seq <= through);
                return Ok(Some(Part { events: events.cloned().collect(), through }));
            }
            if by == ReadBy::Window {
                return Ok(None);
            }
        }
    }
}

/// Makes one of the parts of all routes, as much as one may have.
fn merge(parts: Vec<Part>, span: &Span<'_>, wants: impl Fn(u64) -> bool) -> Part {
    let mut through = parts.iter().map(|part| part.through).min().unwrap_or(span.upto);
    let mut events: Vec<_> = parts.into_iter().flat_map(|part| part.events).filter(|event| wants(event.seq)).collect();
    events.retain(|event| event.seq <= through);
    events.sort_unstable_by_key(|event| event.seq);
    events.dedup_by_key(|event| event.seq);
    let (mut count, mut bytes) = (0, 0);
    while let Some(event) = events.get(count)
        && count < span.max_events
        && (count == 0 || bytes + event.len() <= span.max_bytes)
    {
        bytes += event.len();
        count += 1;
    }
    if let Some(next) = events.get(count) {
        through = next.seq - 1;
        events.truncate(count);
    }
    Part { events, through }
}

/// Waits for a place to read by route. Nobody has one for what is being read for all.
async fn place<'a>(places: &'a Semaphore, waiting: &Waiting<'_>) -> Option<SemaphorePermit<'a>> {
    if waiting.may_be_held_soon() {
        sleep(LULL).await;
    }
    loop {
        waiting.unread().await;
        // It is never closed.
        let permit = places.acquire().await.ok();
        if !waiting.is_being_read() {
            return permit;
        }
    }
}

/// A turn to be read for: with a place, or by the window.
struct Turn<'a> {
    permit: Option<SemaphorePermit<'a>>,
    places: &'a Semaphore,
    in_flight: prometheus::IntGauge,
    _counted: Waiting<'a>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}
