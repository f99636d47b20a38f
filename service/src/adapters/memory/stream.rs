//! The event stream in memory: one log and one durable consumer, shared by the pods of a process.
//!
//! It keeps the promises of a JetStream stream with an explicit-ack pull consumer, and follows nats-server where the details
//! matter:
//! - the consumer begins, with what is published next, when the first pod asks for it;
//! - redeliveries go before new events, and are not held up by max-ack-pending, which counts delayed retries too;
//! - settlements name a delivery, but a late one of an earlier delivery still counts while its event is unsettled: an ack or a
//!   termination ends the event even if it is on its way to another pod, and a retry puts it up for delivery once more;
//! - an event that the bounded log has dropped is never redelivered.
//!
//! Time is tokio's, so tests may pause it. Time stamps of events are the wall clock's.

mod log;
mod replay;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use daisi_ws_domain::{event::StreamId, gap::Gap, ids::PodId};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use self::log::Log;
pub use self::log::{Headers, StreamOptions, Take};
use crate::{
    ports::{AckToken, EventSource, RawEvent, SettledUpTo, Settlement, SourceError, SourceLag, SourceLimits},
    runtime::{clock, watched::Watched},
};

/// How long a pull or a settlement waits in an outage before it says so: long enough that a loop around it does not spin.
const OUTAGE_PATIENCE: Duration = Duration::from_millis(500);

/// The stream is down for everybody: nothing was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event stream is down")]
pub struct StreamDown;

#[derive(Debug)]
struct Inner {
    log: Mutex<Log>,
    /// Moves with every change that a waiting pull has to look at.
    version: Watched<u64>,
}

/// A stream with its one consumer. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct Stream {
    inner: Arc<Inner>,
}

impl Stream {
    /// An empty stream, without a consumer yet.
    #[must_use]
    pub fn new(options: StreamOptions) -> Self {
        let id = StreamId(i128::try_from(clock::now().as_nanos()).unwrap_or_default());
        Self { inner: Arc::new(Inner { log: Mutex::new(Log::new(id, options)), version: Watched::new(0) }) }
    }

    /// The source of one pod. The first one begins the consumer: it delivers what is published from now on.
    #[must_use]
    pub fn handle(&self, pod: PodId) -> StreamHandle {
        let passed_over = {
            let mut log = self.lock();
            log.begin();
            log.passed_over.len()
        };
        StreamHandle {
            stream: self.clone(),
            pod,
            closed: watch::Sender::new(false),
            held: watch::Sender::new(false),
            known: AtomicUsize::new(passed_over),
        }
    }

    /// Stores what comes, as a NATS server does, and returns its sequence: anyone who publishes for people checks a `Publication`
    /// first.
    ///
    /// # Errors
    /// When the stream is down.
    pub fn append(&self, subject: &str, payload: impl Into<Bytes>, headers: Headers) -> Result<u64, StreamDown> {
        let mut log = self.lock();
        if log.down {
            return Err(StreamDown);
        }
        let seq = log.append(subject, payload.into(), headers);
        drop(log);
        self.wake();
        Ok(seq)
    }

    /// Takes the stream away from everybody, or brings it back. What it holds stays.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
        self.wake();
    }

    /// Cuts one pod off from the stream, or connects it again.
    pub fn cut(&self, pod: &PodId, cut: bool) {
        let mut log = self.lock();
        if cut {
            log.cut.insert(pod.clone());
        } else {
            log.cut.remove(pod);
        }
        drop(log);
        self.wake();
    }

    /// Deletes the consumer and makes another one, which begins with what is published next: as an operator does who knows no
    /// better.
    pub fn make_consumer_anew(&self) {
        self.lock().make_consumer_anew();
        self.wake();
    }

    /// How many events are delivered and not settled, delayed retries included.
    #[must_use]
    pub fn ack_pending(&self) -> usize {
        self.lock().unsettled()
    }

    /// How many events the consumer has not delivered yet.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.lock().undelivered()
    }

    /// Sequences of the events that were terminated and are still kept.
    #[must_use]
    pub fn terminated(&self) -> Vec<u64> {
        self.lock().terminated.iter().copied().collect()
    }

    /// Who took the latest events with a sequence above `after`, in the order in which they were taken. The last thousand are
    /// known.
    #[must_use]
    pub fn takes(&self, after: u64) -> Vec<Take> {
        self.lock().takes.iter().filter(|take| take.seq > after).cloned().collect()
    }

    /// Is it taken away from everybody?
    #[must_use]
    pub(crate) fn is_down(&self) -> bool {
        self.lock().down
    }

    /// Sequence of the last event; 0 if there was none.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.lock().end() - 1
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.inner.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.inner.version.bump();
    }
}

/// One pod's end of a [`Stream`]. It fetches nothing ahead, so a dropped pull has taken nothing and closing has nothing to give
/// back.
#[derive(Debug)]
pub struct StreamHandle {
    stream: Stream,
    pod: PodId,
    closed: watch::Sender<bool>,
    /// Takes nothing meanwhile.
    held: watch::Sender<bool>,
    /// How often the consumer was made anew, as far as this pod knows.
    known: AtomicUsize,
}

/// As a client says it that has no connection.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the stream is down")]
struct Down;

#[async_trait]
impl EventSource for StreamHandle {
    async fn pull(&self, max: usize) -> Result<Vec<RawEvent>, SourceError> {
        let version = &self.stream.inner.version;
        let (mut closed, mut held) = (self.closed.subscribe(), self.held.subscribe());
        let mut patience = None;
        // Who has just taken some stands behind those that wait, as JetStream serves the requests of all in turn.
        tokio::task::yield_now().await;
        loop {
            let seen = version.get();
            if *closed.borrow_and_update() {
                return Err(SourceError::Closed);
            }
            let is_held = *held.borrow_and_update();
            let (events, until) = {
                let mut log = self.stream.lock();
                if is_held && log.reaches(&self.pod) {
                    patience = None;
                    (Vec::new(), None)
                } else if log.reaches(&self.pod) {
                    patience = None;
                    let events = log.deliver(max.max(1));
                    log.note_takes(&self.pod, &events);
                    (events, log.next_due())
                } else {
                    let until = *patience.get_or_insert_with(|| Instant::now() + OUTAGE_PATIENCE);
                    if until <= Instant::now() {
                        return Err(SourceError::unreachable(Down));
                    }
                    (Vec::new(), Some(until))
                }
            };
            if !events.is_empty() {
                return Ok(events);
            }
            let due = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = version.wait_for(|now| now != seen) => {}
                _ = closed.changed() => {}
                _ = held.changed() => {}
                () = due => {}
            }
        }
    }

    async fn settle(&self, settlements: Vec<(AckToken, Settlement)>) -> Result<(), SourceError> {
        let version = &self.stream.inner.version;
        let until = Instant::now() + OUTAGE_PATIENCE;
        loop {
            let seen = version.get();
            {
                let mut log = self.stream.lock();
                if log.reaches(&self.pod) {
                    for (ack_token, settlement) in &settlements {
                        log.settle(ack_token, *settlement);
                    }
                    break;
                }
            }
            if timeout_at(until, version.wait_for(|now| now != seen)).await.is_err() {
                return Err(SourceError::unreachable(Down));
            }
        }
        self.stream.wake();
        Ok(())
    }

    async fn close(&self) {
        self.closed.send_replace(true);
    }

    fn hold(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    async fn lag(&self) -> Result<SourceLag, SourceError> {
        let log = self.stream.lock();
        if !log.reaches(&self.pod) {
            return Err(SourceError::unreachable(Down));
        }
        let settled = SettledUpTo { stream: log.id, seq: log.floor(), at: clock::now() };
        Ok(SourceLag { pending: log.undelivered(), ack_pending: log.unsettled(), settled: Some(settled) })
    }

    fn take_missed(&self) -> Option<Gap> {
        let log = self.stream.lock();
        if !log.reaches(&self.pod) {
            return None;
        }
        let known = self.known.swap(log.passed_over.len(), Ordering::Relaxed);
        let missed = log.passed_over.iter().skip(known).flatten();
        missed.copied().reduce(Gap::merge)
    }

    fn limits(&self) -> SourceLimits {
        let options = self.stream.lock().options;
        SourceLimits { ack_wait: options.ack_wait, max_ack_pending: options.max_ack_pending }
    }

    fn trouble(&self) -> Option<SourceError> {
        (!self.stream.lock().reaches(&self.pod)).then(|| SourceError::unreachable(Down))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodId {
        PodId::parse(name).unwrap()
    }

    fn stream(max_ack_pending: usize, capacity: usize) -> Stream {
        Stream::new(StreamOptions { ack_wait: Duration::from_secs(10), max_ack_pending, capacity, max_deliveries: None })
    }

    fn publish(stream: &Stream, count: usize) {
        for _ in 0..count {
            stream.append("wa.acme.a1.chats", "{}", Headers::default()).unwrap();
        }
    }

    async fn seqs(handle: &StreamHandle, max: usize) -> Vec<u64> {
        handle.pull(max).await.unwrap().iter().map(|event| event.seq).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_event_makes_room_and_is_not_delivered() {
        let stream = stream(100, 2);
        let a = stream.handle(pod("a"));
        publish(&stream, 3);
        assert_eq!((stream.pending(), seqs(&a, 10).await), (2, vec![2, 3]));
        publish(&stream, 2);
        assert_eq!((stream.ack_pending(), seqs(&a, 10).await), (0, vec![4, 5]));
    }

    #[tokio::test(start_paused = true)]
    async fn new_events_wait_while_too_many_are_unsettled_and_redeliveries_do_not() {
        let stream = stream(2, 100);
        let a = stream.handle(pod("a"));
        publish(&stream, 3);
        let first = a.pull(10).await.unwrap();
        assert_eq!((first.len(), stream.pending()), (2, 1));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(seqs(&a, 10).await, [1, 2]);
        a.settle(vec![(first[0].ack_token.clone(), Settlement::Ack)]).await.unwrap();
        assert_eq!(seqs(&a, 10).await, [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_ack_of_an_earlier_delivery_counts() {
        let stream = stream(100, 100);
        let (a, b) = (stream.handle(pod("a")), stream.handle(pod("b")));
        publish(&stream, 1);
        let first = a.pull(1).await.unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(b.pull(1).await.unwrap()[0].delivery.count, 2);
        a.settle(vec![(first[0].ack_token.clone(), Settlement::Ack)]).await.unwrap();
        assert_eq!(stream.ack_pending(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_cut_off_gets_nothing_and_the_others_go_on() {
        let stream = stream(100, 100);
        let (a, b) = (stream.handle(pod("a")), stream.handle(pod("b")));
        stream.cut(&pod("a"), true);
        publish(&stream, 1);
        assert!(a.pull(1).await.is_err() && !a.is_connected() && b.is_connected());
        assert_eq!(seqs(&b, 1).await, [1]);
        stream.cut(&pod("a"), false);
        publish(&stream, 1);
        assert_eq!(seqs(&a, 1).await, [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_consumer_begins_with_what_is_published_after_it() {
        let stream = stream(100, 100);
        publish(&stream, 2);
        let a = stream.handle(pod("a"));
        publish(&stream, 1);
        assert_eq!((stream.pending(), seqs(&a, 10).await), (1, vec![3]));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_published_while_the_stream_is_down() {
        let stream = stream(100, 100);
        stream.set_down(true);
        assert_eq!(stream.append("wa.acme.a1.chats", "{}", Headers::default()), Err(StreamDown));
        stream.set_down(false);
        publish(&stream, 1);
        assert_eq!(stream.last_seq(), 1);
    }
}
