//! One read for all who want events of a route in the same moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daisi_ws_domain::{
    event::{Address, Event, Path, Payload, StreamId},
    frame::Stamp,
    maps::Map,
    route::RouteKey,
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

use super::spans::Spans;
use crate::{
    application::hub::{memory::Memory, prepared_message::PreparedMessage},
    metrics::{Metrics, labels::ReadBy},
    ports::{self, ReadRequest, Replay, ReplayError, StoredEvent},
};

/// Events of a route as they go to sessions; what no pod can read is not among them.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) events: Vec<Arc<PreparedMessage>>,
    /// None is left out up to here.
    pub(super) through: u64,
}

type Answer = Result<Arc<Stretch>, ReplayError>;

/// A read that has not begun, and what it has to bring.
struct Waiting {
    number: u64,
    request: ReadRequest,
    answer: Shared<BoxFuture<'static, Answer>>,
}

#[derive(Default)]
struct State {
    waiting: Map<(RouteKey, ReadBy), Waiting>,
    numbers: u64,
}

struct Inner {
    replay: Arc<dyn Replay>,
    spans: Arc<Spans>,
    prefix: String,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

/// Reads the stream, once for all who ask for the same route before the read begins.
pub(super) struct SharedReads(Arc<Inner>);

impl SharedReads {
    pub(super) fn new(
        replay: Arc<dyn Replay>,
        spans: Arc<Spans>,
        prefix: String,
        memory: Arc<Memory>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Inner { replay, spans, prefix, memory, metrics, state: Mutex::default() }))
    }

    /// Reads what is asked for, or from further back if somebody else wants that: then a bound may be met before it comes to what
    /// is asked for here. By the window it comes nowhere if the window does not have all of that.
    pub(super) async fn read(&self, request: &ReadRequest, stream: StreamId, by: ReadBy) -> Answer {
        self.join(request, stream, by).await
    }

    fn join(&self, request: &ReadRequest, stream: StreamId, by: ReadBy) -> Shared<BoxFuture<'static, Answer>> {
        let mut state = self.0.lock();
        let key = (request.route.clone(), by);
        if let Some(waiting) = state.waiting.get_mut(&key) {
            let wanted = &mut waiting.request;
            wanted.after = wanted.after.min(request.after);
            wanted.upto = wanted.upto.max(request.upto);
            wanted.max_events = wanted.max_events.max(request.max_events);
            wanted.max_bytes = wanted.max_bytes.max(request.max_bytes);
            return waiting.answer.clone();
        }
        state.numbers += 1;
        let number = state.numbers;
        let answer = Arc::clone(&self.0).answer(key.clone(), number, stream).boxed().shared();
        let waiting = Waiting { number, request: request.clone(), answer: answer.clone() };
        state.waiting.insert(key, waiting);
        answer
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that are about to ask have asked, and reads. If everybody who waits for it goes, nobody joins it again.
    async fn answer(self: Arc<Self>, key: (RouteKey, ReadBy), number: u64, stream: StreamId) -> Answer {
        let guard = Forget { inner: Arc::clone(&self), key: key.clone(), number };
        tokio::task::yield_now().await;
        let Some(request) = guard.begin() else { return Err(ReplayError::unreachable(Overtaken)) };
        let (route, by) = key;
        let stretch = match by {
            ReadBy::Window => self.spans.read(stream, &request).unwrap_or_else(|| nothing(request.after)),
            ReadBy::Route => {
                let stretch = self.replay.read(&request).await?;
                self.spans.note_read(!stretch.events.is_empty());
                stretch
            }
        };
        self.metrics.replay_reads_total.with_label_values(&[by.as_str()]).inc();
        let events = stretch.events.iter().filter_map(|stored| self.prepare(&route, stream, stored)).collect();
        Ok(Arc::new(Stretch { events, through: stretch.through }))
    }

    fn prepare(&self, route: &RouteKey, stream: StreamId, stored: &StoredEvent) -> Option<Arc<PreparedMessage>> {
        let address = Address::parse(&self.prefix, &stored.subject).ok()?;
        if !address.routes().contains(route) {
            return None;
        }
        let payload = Payload::parse(&stored.payload).ok()?;
        let (seq, stored_at) = (stored.seq, stored.stored_at);
        let event = Event { address, payload, stream, seq, stored_at, request_id: None, traceparent: None };
        // Whoever has it has all before it.
        let stamp = Stamp { safe: Some(seq), replayed: true };
        Some(Arc::new(PreparedMessage::new(&event, Path::Replayed, stamp, &self.memory)))
    }
}

/// A read that came nowhere.
fn nothing(after: u64) -> ports::Stretch {
    ports::Stretch { events: Vec::new(), through: after }
}

/// The read was forgotten before it began.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the read was given up by all who waited for it")]
struct Overtaken;

/// Takes the read out of those that may be joined, once.
struct Forget {
    inner: Arc<Inner>,
    key: (RouteKey, ReadBy),
    number: u64,
}

impl Forget {
    fn begin(&self) -> Option<ReadRequest> {
        let mut state = self.inner.lock();
        if state.waiting.get(&self.key)?.number != self.number {
            return None;
        }
        state.waiting.remove(&self.key).map(|waiting| waiting.request)
    }
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.begin();
    }
}
