//! Where everything that happens in a run is written down: trace, history, counts, and what is wrong.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    history::{History, Moment},
    invariants::{Breach, Holders},
    trace::Trace,
};

/// The record of a run.
#[derive(Debug)]
pub struct Record {
    began: Instant,
    inner: Mutex<Inner>,
}

/// What is written down.
#[derive(Debug, Default)]
pub struct Inner {
    /// Line by line.
    pub trace: Trace,
    /// As data.
    pub history: History,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// What is wrong.
    pub breaches: Vec<Breach>,
    /// Who holds which lock.
    pub holders: Holders,
}

impl Record {
    /// An empty one, which begins now.
    #[must_use]
    pub fn new(trace: Trace) -> Self {
        Self { began: Instant::now(), inner: Mutex::new(Inner { trace, ..Inner::default() }) }
    }

    /// Virtual time since the begin.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.began.elapsed()
    }

    /// The moment of tokio's clock at this virtual time.
    #[must_use]
    pub fn instant(&self, at: Duration) -> Instant {
        self.began + at
    }

    /// To read and write. Never to be held over an await.
    pub fn open(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        self.open().trace.note(self.at(), line);
    }

    /// Counts something.
    pub fn count(&self, what: &'static str) {
        *self.open().counts.entry(what).or_default() += 1;
    }

    /// The next moment of the history.
    pub fn moment(&self) -> Moment {
        self.open().history.now(self.at())
    }

    /// Notes that something is wrong.
    pub fn breach(&self, invariant: &'static str, what: String) {
        let at = self.at();
        let mut inner = self.open();
        inner.trace.note(at, format_args!("BREACH {invariant}: {what}"));
        inner.breaches.push(Breach { invariant, at, what });
    }
}

impl Inner {
    /// Counts something so often.
    pub fn add(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }
}
