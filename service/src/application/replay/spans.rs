//! One read of a whole span of the stream for many who wait.
//!
//! To look for the events of one route costs the server as much as the events of others that lie between, each time anew. So
//! where many wait, everything from the lowest of their cursors on is read once, held as a window and handed out by route. Who
//! waits is never bound to that: a place to read by route may come first. One task reads ([`Spans::run`]).

mod price;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daisi_ws_domain::event::StreamId;
use tokio::{
    sync::{Notify, watch},
    task::yield_now,
    time::{Instant, timeout, timeout_at},
};

pub(super) use self::state::Want;
use self::state::{Grows, Order, State};
use super::window::{OVERHEAD, Piece};
use crate::{
    application::hub::memory::Memory,
    config::Config,
    ports::{ReadRequest, Replay, ReplayError, SpanRequest, Stretch},
    telemetry::Chain,
};

/// Events of one read; between two it is looked whether it goes on fast enough.
const CHUNK: usize = 16 * 1024;
const CHUNK_BYTES: usize = 16 << 20;
/// Events that are taken in before others have their turn.
const SLICE: usize = 512;
/// A span takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nobody waits for one longer: then there still is time for a read by route.
const HOLD: Duration = Duration::from_millis(1500);
/// How fast it goes on is known after this: in the first moments of a storm, all have much to do.
const PACE_KNOWN: Duration = Duration::from_secs(1);
/// Where a span could not be read, none is tried before.
const UNFIT: Duration = Duration::from_secs(10);
/// A window that nobody used for this long is dropped.
const IDLE: Duration = Duration::from_secs(5);
/// A window has no more than this part of the pod's memory budget.
const SHARE_OF_BUDGET: usize = 8;

/// Why a span was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Failed(#[from] ReplayError),
    #[error("it would not be read within {PATIENCE:?}")]
    TooSlow,
    #[error("it has more bytes than may be held")]
    TooLarge,
    #[error("the stream was made anew")]
    StreamChanged,
}

/// Reads spans of the stream for those who wait. One a pod.
pub(super) struct Spans {
    replay: Arc<dyn Replay>,
    prefix: String,
    memory: Arc<Memory>,
    config: watch::Receiver<Arc<Config>>,
    state: Mutex<State>,
    /// There may be something to read.
    asked: Notify,
    /// A read of a span has ended.
    ended: Notify,
}

impl Spans {
    pub(super) fn new(
        replay: Arc<dyn Replay>,
        prefix: String,
        memory: Arc<Memory>,
        config: watch::Receiver<Arc<Config>>,
    ) -> Self {
        let (state, asked, ended) = (Mutex::default(), Notify::new(), Notify::new());
        Self { replay, prefix, memory, config, state, asked, ended }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts as one who waits, and then as one who is read for until that is dropped.
    pub(super) fn wait(&self, want: Want) -> Waiting<'_> {
        let resume = self.config.borrow().resume;
        let mut state = self.lock();
        state.enter(&want);
        let are_many = resume.window_max_bytes > 0 && state.count() >= resume.window_min_clients;
        let may_be_held_soon =
            state.window().is_some_and(|window| window.stream() == want.stream && window.after() <= want.after);
        if are_many || state.window().is_some() {
            self.asked.notify_one();
        }
        let came = Instant::now();
        Waiting { spans: self, want, came, may_be_held_soon: are_many || may_be_held_soon, waits: true }
    }

    /// What a read of the stream brings, if that is held.
    pub(super) fn read(&self, stream: StreamId, request: &ReadRequest) -> Option<Stretch> {
        self.lock().use_window()?.read(stream, request)
    }

    /// Notes whether a read by route found anything: what such reads cost depends on it.
    pub(super) fn note_read(&self, found: bool) {
        self.lock().prices.note(found);
    }

    /// Reads spans as long as it is polled, and drops what nobody uses. One task does.
    pub(super) async fn run(&self) {
        let _nothing_is_left = Emptied(self);
        loop {
            self.asked.notified().await;
            loop {
                while let Some(order) = self.next_order() {
                    self.carry_out(&order).await;
                }
                if self.lock().is_idle(IDLE) {
                    break;
                }
                // Whatever has come of it is looked at above.
                let _ = timeout(IDLE, self.asked.notified()).await;
            }
        }
    }

    /// Bytes that may be held.
    fn room(&self) -> usize {
        self.config.borrow().resume.window_max_bytes.min(self.memory.budget() / SHARE_OF_BUDGET)
    }

    /// What is worth to be read now.
    fn next_order(&self) -> Option<Order> {
        let (least, room) = (self.config.borrow().resume.window_min_clients, self.room());
        let mut state = self.lock();
        if room == 0 || self.memory.is_pressed() {
            state.drop_window();
            return None;
        }
        state.next_order(least, (room / OVERHEAD) as u64, UNFIT)
    }

    async fn carry_out(&self, order: &Order) {
        let underway = Underway::begin(self, order);
        let read = timeout(PATIENCE, self.read_span(order)).await.unwrap_or(Err(Unread::TooSlow));
        let mut state = self.lock();
        match read {
            Ok(piece) => state.put(order, piece),
            Err(Unread::StreamChanged) => state.forget_stream(),
            // It has grown for long: the next begins further on.
            Err(Unread::TooLarge) if order.grows != Grows::Anew => state.drop_window(),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), ?order, "a span of the stream can't be read at once");
                state.unfit = Some(Instant::now());
            }
        }
        drop(state);
        drop(underway);
    }

    async fn read_span(&self, order: &Order) -> Result<Piece, Unread> {
        let Order { stream, after, upto, grows } = *order;
        let room = match grows {
            Grows::Anew => self.room(),
            Grows::Later | Grows::Earlier => {
                let held = self.lock().window().map_or(0, |window| window.bytes());
                self.room().saturating_sub(held)
            }
        };
        let (mut piece, mut through, started) = (Piece::new(&self.memory), after, Instant::now());
        while through < upto {
            let request = SpanRequest { after: through, upto, max_events: CHUNK, max_bytes: CHUNK_BYTES };
            let Stretch { events, through: read } = self.replay.read_all(&request).await?;
            if read <= through {
                return Err(Unread::TooSlow);
            }
            through = read.min(upto);
            let mut events = events.into_iter();
            while events.len() > 0 {
                piece.take(&self.prefix, events.by_ref().take(SLICE));
                yield_now().await;
            }
            if piece.bytes() > room {
                return Err(Unread::TooLarge);
            }
            let elapsed = started.elapsed();
            let whole = elapsed.as_secs_f64() * (upto - after) as f64 / (through - after) as f64;
            if elapsed > PACE_KNOWN && whole > PATIENCE.as_secs_f64() {
                return Err(Unread::TooSlow);
            }
        }
        // A stream does not become again what it was: the whole read was of this one.
        if self.replay.bounds().await?.stream != stream {
            return Err(Unread::StreamChanged);
        }
        Ok(piece)
    }
}

/// Drops the window when nobody looks after it any more.
struct Emptied<'a>(&'a Spans);

impl Drop for Emptied<'_> {
    fn drop(&mut self) {
        self.0.lock().drop_window();
    }
}

/// A span that is being read, which ends for those who wait however that ends.
struct Underway<'a>(&'a Spans);

impl<'a> Underway<'a> {
    fn begin(spans: &'a Spans, order: &Order) -> Self {
        spans.lock().reading = Some(*order);
        Self(spans)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.lock().reading = None;
        self.0.ended.notify_waiters();
    }
}

/// One who waits, or is read for by route.
pub(super) struct Waiting<'a> {
    spans: &'a Spans,
    want: Want,
    came: Instant,
    may_be_held_soon: bool,
    waits: bool,
}

impl Waiting<'_> {
    /// The turn has come.
    pub(super) fn wait_no_more(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.spans.lock().wait_no_more(&self.want);
        }
    }

    /// Were there so many when this one came, or is so much held, that a span may be read for it?
    pub(super) fn may_be_held_soon(&self) -> bool {
        self.may_be_held_soon
    }

    /// Waits until what is wanted is held.
    pub(super) async fn held(&self) {
        self.after_reads(|state| state.has(&self.want)).await;
    }

    /// Waits while what is wanted is being read, though not too long.
    pub(super) async fn unread(&self) {
        let _ = timeout_at(self.came + HOLD, self.after_reads(|state| !state.reads(&self.want))).await;
    }

    /// Is what is wanted being read, and worth waiting for?
    pub(super) fn is_being_read(&self) -> bool {
        self.came.elapsed() < HOLD && self.spans.lock().reads(&self.want)
    }

    async fn after_reads(&self, done: impl Fn(&State) -> bool) {
        loop {
            let mut ended = std::pin::pin!(self.spans.ended.notified());
            ended.as_mut().enable();
            if done(&self.spans.lock()) {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.wait_no_more();
        self.spans.lock().leave();
    }
}
