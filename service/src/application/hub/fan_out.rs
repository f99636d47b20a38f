//! Events on their way to the sessions of a worker, put in mailboxes by that worker.
//!
//! Were the mailboxes of ten thousand sockets filled by the dispatcher, every session would be fetched into two processors'
//! caches, one after the other, and long forgotten by the second when its turn to write comes. So a worker is handed the event
//! and a list. It fills a portion of the mailboxes and lets their tasks write before it goes on to the next, while all of it is
//! at hand.
//!
//! What is for few sessions is put there at once, unless something waits for the worker: then it waits behind that, so that
//! events keep their order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use daisi_ws_domain::close::CloseReason;

use super::{
    mailbox::{Push, item::Item},
    prepared_message::PreparedMessage,
    session::Session,
};
use crate::{
    metrics::{Metrics, labels::Dropped},
    runtime::workers::Worker,
};

/// So many sessions are no detour worth.
const FEW: usize = 16;
/// Sessions whose mailboxes are filled before their tasks are let run: some hundred kilobytes of memory.
const PORTION: usize = 64;
/// Events that may wait for a worker. Anyone who brings more does the worker's work before he goes on, and is slowed down by
/// that.
const MAX_WAITING: usize = 512;
const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;
/// What is put in a mailbox at one visit, or one event: the task of the socket is let write before there is more.
const VISIT_BYTES: usize = 4 * 1024 * 1024;

/// The sessions of one route on one worker.
pub(super) type List = Arc<Vec<Arc<Session>>>;

/// Puts an event in the mailbox of a session. False if nobody will take it out.
fn put(session: &Session, event: &Arc<PreparedMessage>, metrics: &Metrics) -> bool {
    put_item(session, Item::Event(Arc::clone(event)), metrics)
}

/// Puts an item in the mailbox of a session. False if nobody will take it out.
pub(super) fn put_item(session: &Session, item: Item, metrics: &Metrics) -> bool {
    let dropped = |why: Dropped, count| {
        metrics.websocket_messages_dropped_total.with_label_values(&[why.as_str(), session.kind().as_str()]).inc_by(count);
    };
    match session.put(item) {
        Push::Taken { dropped: 0 } => true,
        Push::Taken { dropped: count } => {
            dropped(Dropped::BufferFull, count as u64);
            true
        }
        Push::Overflow => {
            dropped(Dropped::Overflow, 1);
            // Nothing more is put there, no matter who brings it; the task of the socket takes the session out.
            session.mailbox().close();
            session.close(CloseReason::SlowClient);
            true
        }
        Push::Closed => false,
    }
}

/// One pass over the same sessions for many events. A late event joins the scan where it stands and leaves after one full pass:
/// each session is visited once for all that is there, and gets events in the order in which they came.
#[derive(Debug)]
struct SharedScan {
    sessions: List,
    /// Whose turn is next.
    next: usize,
    scanned: VecDeque<Scanned>,
    scanned_bytes: usize,
    /// Events that get on as others get off.
    queuing: VecDeque<Arc<PreparedMessage>>,
}

#[derive(Debug)]
struct Scanned {
    event: Arc<PreparedMessage>,
    /// Sessions that it has not come to yet.
    left: usize,
}

impl SharedScan {
    fn new(sessions: List) -> Self {
        Self { sessions, next: 0, scanned: VecDeque::new(), scanned_bytes: 0, queuing: VecDeque::new() }
    }

    fn is_over(&self) -> bool {
        self.scanned.is_empty() && self.queuing.is_empty()
    }

    fn let_on(&mut self) {
        while let Some(event) = self.queuing.front()
            && (self.scanned.is_empty() || self.scanned_bytes + event.len() <= VISIT_BYTES)
            && let Some(event) = self.queuing.pop_front()
        {
            self.scanned_bytes += event.len();
            self.scanned.push_back(Scanned { event, left: self.sessions.len() });
        }
    }

    /// Visits the next sessions. How many events have made a full pass, and their bytes.
    fn portion(&mut self, metrics: &Metrics) -> (usize, usize) {
        self.let_on();
        // Portions begin at the same places in every scan, so that an event leaves between two of them.
        let end = self.sessions.len().min(self.next + PORTION);
        let visited = &self.sessions[self.next..end];
        visited.iter().for_each(|session| session.prefetch());
        for session in visited {
            for scanned in &self.scanned {
                put(session, &scanned.event, metrics);
            }
        }
        let visited = visited.len();
        self.scanned.iter_mut().for_each(|scanned| scanned.left -= visited);
        self.next = if end == self.sessions.len() { 0 } else { end };
        let (events, bytes) = (self.scanned.len(), self.scanned_bytes);
        while self.scanned.front().is_some_and(|scanned| scanned.left == 0)
            && let Some(Scanned { event, .. }) = self.scanned.pop_front()
        {
            self.scanned_bytes -= event.len();
        }
        (events - self.scanned.len(), bytes - self.scanned_bytes)
    }
}

#[derive(Debug, Default)]
struct State {
    scans: VecDeque<SharedScan>,
    /// Events in all scans, and their bytes.
    waiting: usize,
    waiting_bytes: usize,
    /// A worker is there that will see what is added.
    is_worked_off: bool,
}

impl State {
    fn add(&mut self, sessions: List, event: Arc<PreparedMessage>) {
        self.waiting += 1;
        self.waiting_bytes += event.len();
        match self.scans.back_mut() {
            Some(last) if Arc::ptr_eq(&last.sessions, &sessions) => last.queuing.push_back(event),
            _ => {
                let mut scan = SharedScan::new(sessions);
                scan.queuing.push_back(event);
                self.scans.push_back(scan);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.waiting > MAX_WAITING || self.waiting_bytes > MAX_WAITING_BYTES
    }

    /// Fills the next mailboxes. False if nothing is left.
    fn portion(&mut self, metrics: &Metrics) -> bool {
        let Some(scan) = self.scans.front_mut() else { return false };
        let (events, bytes) = scan.portion(metrics);
        self.waiting -= events;
        self.waiting_bytes -= bytes;
        if scan.is_over() {
            self.scans.pop_front();
        }
        !self.scans.is_empty()
    }
}

/// What waits for one worker.
#[derive(Debug)]
pub(super) struct WorkerQueue {
    worker: Arc<Worker>,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

impl WorkerQueue {
    fn new(worker: &Arc<Worker>, metrics: &Arc<Metrics>) -> Self {
        Self { worker: Arc::clone(worker), state: Mutex::default(), metrics: Arc::clone(metrics) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings an event to sessions of this worker; how many will have it, at once or once the queue is [started](FanOut::start).
    pub(super) fn bring(
        self: &Arc<Self>,
        sessions: &[Arc<Session>],
        list: impl FnOnce() -> List,
        event: &Arc<PreparedMessage>,
    ) -> usize {
        let mut state = self.lock();
        if state.scans.is_empty() && sessions.len() <= FEW {
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
        if state.scans.is_empty() || std::mem::replace(&mut state.is_worked_off, true) {
            return;
        }
        // A runtime that is shut down drops what it is given at once, and the worker wants the lock then.
        drop(state);
        self.worker.spawn(Filling(Arc::clone(self)).run());
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

/// The task that works a queue off, in turn with the tasks of the worker's sockets. It lives as long as there is something to do,
/// and ends with its worker.
struct Filling(Arc<WorkerQueue>);

impl Filling {
    async fn run(self) {
        while self.0.portion() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // Should it end in another way, the next event gets another worker.
        self.0.lock().is_worked_off = false;
    }
}

/// The queues of all workers that have sessions.
#[derive(Debug)]
pub(super) struct FanOut {
    queues: Vec<Arc<WorkerQueue>>,
    metrics: Arc<Metrics>,
}

impl FanOut {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { queues: Vec::new(), metrics }
    }

    /// That of the worker on which a session lives.
    pub(super) fn queue_of(&mut self, session: &Session) -> &Arc<WorkerQueue> {
        let worker = session.worker();
        let known = self.queues.iter().position(|queue| Arc::ptr_eq(&queue.worker, worker));
        let place = known.unwrap_or_else(|| {
            self.queues.push(Arc::new(WorkerQueue::new(worker, &self.metrics)));
            self.queues.len() - 1
        });
        &self.queues[place]
    }

    /// Brings an event to one session.
    pub(super) fn bring(&mut self, session: &Arc<Session>, event: &Arc<PreparedMessage>) -> usize {
        self.queue_of(session).bring(std::slice::from_ref(session), || Arc::new(vec![Arc::clone(session)]), event)
    }

    /// Has every worker work off what was brought.
    pub(super) fn start(&self) {
        self.queues.iter().for_each(WorkerQueue::start);
    }
}
