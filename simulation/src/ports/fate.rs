//! What befalls a call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use super::Caller;
use crate::{draw::Draw, plan::Rate, record::Record};

/// A port of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// Session locks.
    Locks,
    /// Routes and membership.
    Routes,
    /// Kills.
    Kills,
    /// Events.
    Source,
    /// Other pods.
    Peers,
    /// The stream again.
    Replay,
}

/// What befalls a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fate {
    /// It arrives so much later.
    pub before: Duration,
    /// Its answer comes so much later.
    pub after: Duration,
    /// It fails before it does anything.
    pub refused: bool,
    /// It is carried out, and not answered.
    pub unanswered: bool,
    /// That happens so long after the caller has given up; zero: before.
    pub late: Duration,
    /// It is carried out twice.
    pub doubled: bool,
}

/// A port of one pod: says what befalls each call. What it says of a call depends on the seed, the pod, the port and how many
/// calls there were before, and on nothing else.
#[derive(Debug)]
pub struct Port {
    kind: PortKind,
    rate: Rate,
    caller: Caller,
    calls: AtomicU64,
    late: Late,
}

/// Calls that nobody waits for and that are not carried out yet. What is asked for later comes after them, as on a connection.
#[derive(Debug, Default)]
pub(crate) struct Late {
    pending: AtomicUsize,
    done: Notify,
}

impl Port {
    pub(crate) fn new(kind: PortKind, rate: Rate, caller: &Caller) -> Self {
        Self { kind, rate, caller: caller.clone(), calls: AtomicU64::new(0), late: Late::default() }
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.caller.record
    }

    pub(crate) fn pod(&self) -> &str {
        &self.caller.pod
    }

    pub(crate) fn life(&self) -> usize {
        self.caller.life
    }

    pub(crate) fn late(&self) -> &Late {
        &self.late
    }

    /// What befalls the next call.
    pub fn next(&self) -> Fate {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.rate.is_zero() || self.caller.record.at() >= self.caller.faults_end {
            return Fate::default();
        }
        let mut draw = Draw::of(&[self.caller.seed, self.caller.number, self.kind as u64, call]);
        let fate = self.draw(&mut draw);
        self.count(&fate);
        fate
    }

    fn draw(&self, draw: &mut Draw) -> Fate {
        let rate = &self.rate;
        let mut pause = |share: f64| {
            if draw.chance(share) { Duration::from_millis(draw.magnitude(1, rate.delay.max(1))) } else { Duration::ZERO }
        };
        let (before, after) = (pause(rate.delayed), pause(rate.delayed / 2.0));
        let late = if draw.chance(0.3) { Duration::from_millis(draw.magnitude(1, 400)) } else { Duration::ZERO };
        let fails = draw.unit();
        let refused = fails < rate.refused;
        let unanswered = !refused && fails < rate.refused + rate.unanswered;
        Fate { before, after, refused, unanswered, late, doubled: draw.chance(rate.doubled) }
    }

    fn count(&self, fate: &Fate) {
        let names: [&'static str; 4] = match self.kind {
            PortKind::Locks => ["locks: delayed", "locks: refused", "locks: unanswered", "locks: doubled"],
            PortKind::Routes => ["routes: delayed", "routes: refused", "routes: unanswered", "routes: doubled"],
            PortKind::Kills => ["kills: delayed", "kills: refused", "kills: unanswered", "kills: doubled"],
            PortKind::Source => ["source: delayed", "source: refused", "source: unanswered", "source: doubled"],
            PortKind::Replay => ["replay: delayed", "replay: refused", "replay: unanswered", "replay: doubled"],
            PortKind::Peers => ["peers: delayed", "peers: refused", "peers: unanswered", "peers: doubled"],
        };
        let befell = [fate.is_delayed(), fate.refused, fate.unanswered, fate.doubled];
        names.iter().zip(befell).filter(|(_, befell)| *befell).for_each(|(name, _)| self.record().count(name));
    }

    /// Notes in the trace what a call came to.
    pub(crate) fn note(&self, call: std::fmt::Arguments<'_>) {
        self.record().note(format_args!("{} {call}", self.pod()));
    }
}

impl Fate {
    /// Does it take longer?
    #[must_use]
    pub fn is_delayed(&self) -> bool {
        !(self.before.is_zero() && self.after.is_zero())
    }

    pub(crate) async fn arrive(&self) {
        pause(self.before).await;
    }

    pub(crate) async fn come_back(&self) {
        pause(self.after).await;
    }
}

/// Waits, if there is anything to wait for: a pause of no length is a turn of the timer all the same.
pub(crate) async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl Late {
    pub(crate) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.done.notify_waiters();
    }

    /// Waits until all of them have been carried out.
    pub(crate) async fn over(&self) {
        loop {
            let done = self.done.notified();
            if self.pending.load(Ordering::Relaxed) == 0 {
                return;
            }
            done.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Trace;

    fn port(rate: Rate, number: u64) -> Port {
        let record = Arc::new(Record::new(Trace::default()));
        let caller = Caller { pod: "p".to_owned(), life: 0, number, seed: 7, faults_end: Duration::from_secs(60), record };
        Port::new(PortKind::Locks, rate, &caller)
    }

    const RATE: Rate = Rate { delayed: 0.5, delay: 100, refused: 0.2, unanswered: 0.2, doubled: 0.2 };

    #[tokio::test(start_paused = true)]
    async fn what_befalls_a_call_follows_from_its_place_alone() {
        let fates = |number| {
            let port = port(RATE, number);
            (0..200).map(|_| port.next()).collect::<Vec<_>>()
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
        let all = fates(1);
        assert!(all.iter().any(|fate| fate.refused) && all.iter().any(|fate| fate.unanswered));
        assert!(!all.iter().any(|fate| fate.refused && fate.unanswered));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_befalls_calls_once_faults_have_ended() {
        let port = port(RATE, 1);
        sleep(Duration::from_secs(61)).await;
        assert!((0..200).all(|_| port.next() == Fate::default()));
    }
}
