//! Events on their way to the sessions of a core, put in mailboxes by that core.
//!
//! Were the mailboxes of ten thousand sockets filled by whoever dispatches, every session would be fetched into two processors' caches, one after the other, and
//! long forgotten by the second when its turn to write comes. So a core is handed the event and a list. It fills a portion of the mailboxes and lets their
//! tasks write before it goes on to the next, while all of it is at hand.
//!
//! What is for few sessions is put there at once, unless something waits for the core: then it waits behind that, so that events keep their order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use daisi_ws_domain::close::CloseReason;

use super::{
    mailbox::{Item, Push},
    outgoing::Outgoing,
    session::Session,
};
use crate::{metrics::Metrics, runtime::cores::Core};

/// So many sessions are no detour worth.
const FEW: usize = 16;
/// Sessions whose mailboxes are filled before their tasks are let run: some hundred kilobytes of memory.
const PORTION: usize = 64;
/// Events that may wait for a core. Whoever brings more does the core's work before he goes on, and is slowed down by that.
const MAX_WAITING: usize = 512;
const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;
/// What is put in a mailbox at one visit, or one event: the task of the socket is let write before there is more.
const VISIT_BYTES: usize = 4 * 1024 * 1024;

/// The sessions of one route on one core.
pub(super) type List = Arc<Vec<Arc<Session>>>;

/// Puts an event in the mailbox of a session. False if nobody will take it out.
pub(super) fn put(session: &Session, event: &Arc<Outgoing>, metrics: &Metrics) -> bool {
    put_item(session, Item::Event(Arc::clone(event)), metrics)
}

/// Puts an item in the mailbox of a session. False if nobody will take it out.
pub(super) fn put_item(session: &Session, item: Item, metrics: &Metrics) -> bool {
    let dropped = |why, count| {
        metrics.websocket_messages_dropped_total.with_label_values(&[why, session.kind().as_str()]).inc_by(count);
    };
    match session.put(item) {
        Push::Taken { dropped: 0 } => true,
        Push::Taken { dropped: count } => {
            dropped("buffer_full", count as u64);
            true
        }
        Push::Overflow => {
            dropped("overflow", 1);
            // Nothing more is put there, whoever brings it; the task of the socket takes the session out.
            session.mailbox().close();
            session.close(CloseReason::SlowClient);
            true
        }
        Push::Closed => false,
    }
}

/// Events that go round the same sessions. One that comes later gets on where the round is, and off where it got on: each session is visited once for
/// all that is there, and gets events in the order in which they came.
#[derive(Debug)]
struct Round {
    sessions: List,
    /// Whose turn is next.
    next: usize,
    riding: VecDeque<Riding>,
    riding_bytes: usize,
    /// Events that get on as others get off.
    queuing: VecDeque<Arc<Outgoing>>,
}

#[derive(Debug)]
struct Riding {
    event: Arc<Outgoing>,
    /// Sessions that it has not come to yet.
    left: usize,
}

impl Round {
    fn new(sessions: List) -> Self {
        Self { sessions, next: 0, riding: VecDeque::new(), riding_bytes: 0, queuing: VecDeque::new() }
    }

    fn is_over(&self) -> bool {
        self.riding.is_empty() && self.queuing.is_empty()
    }

    fn let_on(&mut self) {
        while let Some(event) = self.queuing.front()
            && (self.riding.is_empty() || self.riding_bytes + event.len() <= VISIT_BYTES)
            && let Some(event) = self.queuing.pop_front()
        {
            self.riding_bytes += event.len();
            self.riding.push_back(Riding { event, left: self.sessions.len() });
        }
    }

    /// Visits the next sessions. How many events have gone all the way round, and their bytes.
    fn portion(&mut self, metrics: &Metrics) -> (usize, usize) {
        self.let_on();
        // Portions begin at the same places in every round, so that an event gets off between two of them.
        let end = self.sessions.len().min(self.next + PORTION);
        let visited = &self.sessions[self.next..end];
        visited.iter().for_each(|session| session.fetch());
        for session in visited {
            for riding in &self.riding {
                put(session, &riding.event, metrics);
            }
        }
        let visited = visited.len();
        self.riding.iter_mut().for_each(|riding| riding.left -= visited);
        self.next = if end == self.sessions.len() { 0 } else { end };
        let (events, bytes) = (self.riding.len(), self.riding_bytes);
        while self.riding.front().is_some_and(|riding| riding.left == 0)
            && let Some(Riding { event, .. }) = self.riding.pop_front()
        {
            self.riding_bytes -= event.len();
        }
        (events - self.riding.len(), bytes - self.riding_bytes)
    }
}

#[derive(Debug, Default)]
struct State {
    rounds: VecDeque<Round>,
    /// Events in all rounds, and their bytes.
    waiting: usize,
    waiting_bytes: usize,
    /// A worker is there that will see what is added.
    is_worked_off: bool,
}

impl State {
    fn add(&mut self, sessions: List, event: Arc<Outgoing>) {
        self.waiting += 1;
        self.waiting_bytes += event.len();
        match self.rounds.back_mut() {
            Some(last) if Arc::ptr_eq(&last.sessions, &sessions) => last.queuing.push_back(event),
            _ => {
                let mut round = Round::new(sessions);
                round.queuing.push_back(event);
                self.rounds.push_back(round);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.waiting > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES
    }

    /// Fills the next mailboxes. False if nothing is left.
    fn portion(&mut self, metrics: &Metrics) -> bool {
        let Some(round) = self.rounds.front_mut() else { return false };
        let (events, bytes) = round.portion(metrics);
        self.waiting -= events;
        self.waiting_bytes -= bytes;
        if round.is_over() {
            self.rounds.pop_front();
        }
        !self.rounds.is_empty()
    }
}

/// What waits for one core.
#[derive(Debug)]
pub(super) struct CoreQueue {
    core: Arc<Core>,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

impl CoreQueue {
    fn new(core: &Arc<Core>, metrics: &Arc<Metrics>) -> Self {
        Self { core: Arc::clone(core), state: Mutex::default(), metrics: Arc::clone(metrics) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings an event to sessions of this core; how many will have it, at once or once the queue is [started](FanOut::start).
    pub(super) fn bring(
        self: &Arc<Self>,
        sessions: &[Arc<Session>],
        list: impl FnOnce() -> List,
        event: &Arc<Outgoing>,
    ) -> usize {
        let mut state = self.lock();
        if state.rounds.is_empty() && sessions.len() <= FEW {
            return sessions.iter().filter(|session| put(session, event, &self.metrics)).count();
        }
        state.add(list(), Arc::clone(event));
        while state.is_full() {
            state.portion(&self.metrics);
        }
        sessions.len()
    }

    /// Sees to it that what waits is worked off.
    fn start(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.rounds.is_empty() || std::mem::replace(&mut state.is_worked_off, true) {
            return;
        }
        // A runtime that is shut down drops what it is given at once, and the worker wants the lock then.
        drop(state);
        self.core.runtime().spawn(Worker(Arc::clone(self)).run());
    }

    /// Puts all that waits in mailboxes, now and on this thread.
    pub(super) fn work_off(&self) {
        let mut state = self.lock();
        while state.portion(&self.metrics) {}
    }

    /// False, and the worker is as good as gone, if nothing is left.
    fn portion(&self) -> bool {
        let mut state = self.lock();
        let more = state.portion(&self.metrics);
        state.is_worked_off = more;
        more
    }
}

/// The task that works a queue off, in turn with the tasks of the core's sockets. It lives as long as there is something to do, and ends with its core.
struct Worker(Arc<CoreQueue>);

impl Worker {
    async fn run(self) {
        while self.0.portion() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Should it end in another way, the next event gets another worker.
        self.0.lock().is_worked_off = false;
    }
}

/// The queues of all cores that have sessions.
#[derive(Debug)]
pub(super) struct FanOut {
    queues: Vec<Arc<CoreQueue>>,
    metrics: Arc<Metrics>,
}

impl FanOut {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { queues: Vec::new(), metrics }
    }

    /// That of the core on which a session lives, if it lives on one.
    pub(super) fn queue_of(&mut self, session: &Session) -> Option<&Arc<CoreQueue>> {
        let core = session.core()?;
        let known = self.queues.iter().position(|queue| Arc::ptr_eq(&queue.core, core));
        let place = known.unwrap_or_else(|| {
            self.queues.push(Arc::new(CoreQueue::new(core, &self.metrics)));
            self.queues.len() - 1
        });
        self.queues.get(place)
    }

    /// Brings an event to one session.
    pub(super) fn bring(&mut self, session: &Arc<Session>, event: &Arc<Outgoing>) -> usize {
        match self.queue_of(session) {
            Some(queue) => queue.bring(std::slice::from_ref(session), || Arc::new(vec![Arc::clone(session)]), event),
            None => usize::from(put(session, event, &self.metrics)),
        }
    }

    /// Has every core work off what was brought.
    pub(super) fn start(&self) {
        self.queues.iter().for_each(CoreQueue::start);
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
