//! What is counted with every event and every delivery, apart for each thread, and added up when somebody looks.
//!
//! A counter that the threads of all sockets share is memory that they take from one another with each delivery, some ten times;
//! where many sockets get one event that was as much work as all else outside the kernel. A lock that only one thread takes costs
//! next to nothing.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::{
    event::{EventKind, Path},
    frame::FrameKind,
    words,
};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, local::LocalHistogram};

use super::labels::Direction;

/// So many threads count without getting in each other's way; where there are more, some share.
const SHARDS: usize = 32;

thread_local! {
    /// Which shard this thread counts in.
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

words! {
    /// What a taken event came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum SettledAs {
        /// Acknowledged.
        Acked = "acked",
        /// To be delivered again.
        Retried = "retried",
        /// Terminated: some live pod could not be reached in time.
        GivenUp = "given_up",
        /// Terminated: it is no event.
        Poison = "poison",
    }
}

/// What was counted and not added up yet.
#[derive(Debug)]
pub(crate) struct ShardedCounters {
    bytes_in: Count,
    bytes_out: Count,
    sent: [Count; FrameKind::ALL.len()],
    received: [Count; EventKind::ALL.len()],
    settled: [Count; SettledAs::ALL.len()],
    local: Times,
    forwarded: Times,
}

/// A number that is added to a counter now and then.
#[derive(Debug)]
struct Count {
    counter: IntCounter,
    more: u64,
}

impl Count {
    fn flush(&mut self) {
        self.counter.inc_by(std::mem::take(&mut self.more));
    }
}

/// The histograms of one path.
#[derive(Debug)]
struct Times {
    delivery: LocalHistogram,
    end_to_end: LocalHistogram,
}

/// What is shown, and counted for here.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) bytes: &'a IntCounterVec,
    pub(super) sent: &'a IntCounterVec,
    pub(super) received: &'a IntCounterVec,
    pub(super) settled: &'a IntCounterVec,
    pub(super) delivery: &'a HistogramVec,
    pub(super) end_to_end: &'a HistogramVec,
}

impl ShardedCounters {
    fn new(shown: &Shown<'_>) -> Self {
        let times = |path: Path| {
            let local = |histogram: Histogram| histogram.local();
            Times {
                delivery: local(shown.delivery.with_label_values(&[path.as_str()])),
                end_to_end: local(shown.end_to_end.with_label_values(&[path.as_str()])),
            }
        };
        let count = |counter| Count { counter, more: 0 };
        let bytes = |direction: Direction| count(shown.bytes.with_label_values(&[direction.as_str()]));
        Self {
            bytes_in: bytes(Direction::In),
            bytes_out: bytes(Direction::Out),
            sent: FrameKind::ALL.map(|kind| count(shown.sent.with_label_values(&[kind.as_str()]))),
            received: EventKind::ALL.map(|kind| count(shown.received.with_label_values(&[kind.as_str()]))),
            settled: SettledAs::ALL.map(|outcome| count(shown.settled.with_label_values(&[outcome.as_str()]))),
            local: times(Path::Local),
            forwarded: times(Path::Forwarded),
        }
    }

    /// Bytes read from a socket.
    pub(crate) fn bytes_in(&mut self, count: usize) {
        self.bytes_in.more += count as u64;
    }

    /// Bytes written to a socket.
    pub(crate) fn bytes_out(&mut self, count: usize) {
        self.bytes_out.more += count as u64;
    }

    /// So many frames of a kind were written.
    pub(crate) fn sent(&mut self, kind: FrameKind, count: usize) {
        self.sent[kind as usize].more += count as u64;
    }

    /// An event was taken from the stream.
    pub(crate) fn received(&mut self, kind: EventKind) {
        self.received[kind as usize].more += 1;
    }

    /// An event was settled.
    pub(crate) fn settled(&mut self, outcome: SettledAs) {
        self.settled[outcome as usize].more += 1;
    }

    /// An event was written to one socket: so long after the stream stored it, and after the publisher says it happened. One that
    /// was read again is not timed.
    pub(crate) fn written(&mut self, path: Path, delivery: Duration, end_to_end: Option<Duration>) {
        let times = match path {
            Path::Local => &self.local,
            Path::Forwarded => &self.forwarded,
            Path::Replayed => return,
        };
        times.delivery.observe(delivery.as_secs_f64());
        if let Some(end_to_end) = end_to_end {
            times.end_to_end.observe(end_to_end.as_secs_f64());
        }
    }

    fn flush(&mut self) {
        let counts = [&mut self.bytes_in, &mut self.bytes_out].into_iter();
        counts.chain(&mut self.sent).chain(&mut self.received).chain(&mut self.settled).for_each(Count::flush);
        for times in [&self.local, &self.forwarded] {
            times.delivery.flush();
            times.end_to_end.flush();
        }
    }
}

/// On cache lines of its own; processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Place(Mutex<ShardedCounters>);

/// Counters for each of so many threads.
#[derive(Debug)]
pub(super) struct Shards(Box<[Place]>);

impl Shards {
    pub(super) fn new(shown: &Shown<'_>) -> Self {
        Self((0..SHARDS).map(|_| Place(Mutex::new(ShardedCounters::new(shown)))).collect())
    }

    /// That of the thread that asks.
    pub(super) fn mine(&self) -> MutexGuard<'_, ShardedCounters> {
        self.0[PLACE.with(|place| *place)].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds all of them to what is shown.
    pub(super) fn flush(&self) {
        self.0.iter().for_each(|place| place.0.lock().unwrap_or_else(PoisonError::into_inner).flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn what_threads_count_is_added_up_once_when_somebody_looks() {
        let metrics = Metrics::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut counters = metrics.sharded();
                    counters.bytes_in(1);
                    counters.bytes_out(10);
                    counters.sent(FrameKind::Gap, 2);
                    counters.received(EventKind::Agent);
                    counters.settled(SettledAs::Retried);
                    counters.written(Path::Local, Duration::from_millis(2), Some(Duration::from_millis(3)));
                    counters.written(Path::Forwarded, Duration::from_millis(2), None);
                });
            }
        });
        for _ in 0..2 {
            let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
            for line in [
                "dws_websocket_bytes_total{direction=\"in\"} 3",
                "dws_websocket_bytes_total{direction=\"out\"} 30",
                "dws_messages_sent_total{type=\"gap\"} 6",
                "dws_messages_sent_total{type=\"event\"} 0",
                "dws_messages_received_total{kind=\"agent\"} 3",
                "dws_events_settled_total{outcome=\"retried\"} 3",
                "dws_event_delivery_seconds_count{path=\"local\"} 3",
                "dws_event_delivery_seconds_bucket{path=\"forwarded\",le=\"0.0025\"} 3",
                "dws_event_end_to_end_seconds_count{path=\"local\"} 3",
                "dws_event_end_to_end_seconds_count{path=\"forwarded\"} 0",
            ] {
                assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
            }
        }
    }
}
