//! The life of a pod's tasks: who owns them, how they stop, and what a panic does.
//!
//! A pod stops in two steps. The *soft* token starts the drain: what is under way is brought to an end. The *hard* token, at the
//! deadline or on a second signal, ends everything at its next await.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use super::{backoff::Backoff, gate::Gate, workers::Worker};
use crate::{
    metrics::Metrics,
    telemetry::audit::{Action, Actor, Audit},
};

/// How long a supervised task that panicked waits before it starts again: long enough not to spin, short against an ack wait.
const RESTARTS: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
/// A supervised task that ran for so long before it panicked is well: it waits no longer than the first time.
const WELL: Duration = Duration::from_secs(30);

/// The two steps of a shutdown.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Drain: finish what is under way, begin nothing.
    pub soft: CancellationToken,
    /// Stop at the next await.
    pub hard: CancellationToken,
}

impl Shutdown {
    /// Obeys the process's signals until the hard token is cancelled: SIGTERM and SIGINT drain, a second one ends at once, SIGHUP
    /// calls `on_hangup`.
    ///
    /// # Errors
    /// When the system does not let the process listen.
    pub(crate) async fn obey_signals(self, on_hangup: impl Fn()) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            let signal = tokio::select! {
                () = self.hard.cancelled() => return Ok(()),
                Some(()) = hangup.recv() => {
                    on_hangup();
                    continue;
                }
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
            };
            let audit = Audit { what: Some(signal), ..Audit::of(Action::Drain, Actor::default()) };
            if self.soft.is_cancelled() {
                audit.log("a second signal: the pod ends at once");
                self.hard.cancel();
            } else {
                audit.log("a signal: the pod drains; a second one ends it at once");
                self.soft.cancel();
            }
        }
    }
}

/// Owns every task of one pod. Clones share the same tasks.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    span: tracing::Span,
    gate: Option<Arc<Gate>>,
}

impl Tasks {
    /// No tasks yet. `span` goes around each of them.
    #[must_use]
    pub fn new(shutdown: Shutdown, metrics: Arc<Metrics>, span: tracing::Span) -> Self {
        Self { tracker: TaskTracker::new(), shutdown, metrics, span, gate: None }
    }

    /// The same, of which none goes on while the gate is shut but those that [come by the thousand](Self::spawn_many_on): who
    /// spawns these has to guard them.
    #[must_use]
    pub fn behind(self, gate: &Arc<Gate>) -> Self {
        Self { gate: Some(Arc::clone(gate)), ..self }
    }

    /// Where the pod's tasks count.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The tokens that the tasks obey.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs a task until it ends or the hard token is cancelled. A panic ends this task alone: the panic hook has logged it with
    /// its stack.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.start(self.guard(name, task).instrument(self.span.clone()));
    }

    /// As [`Tasks::spawn_on`], for tasks by the thousand that are woken often, and that end by themselves at the hard token: see
    /// [`Tasks::at_the_end`]. To wait for the token in each of them would have every wake-up take a lock that all of them share,
    /// and so would the pod's span around them cost at every wake-up; what they log has to name the pod.
    pub fn spawn_many_on(&self, worker: &Arc<Worker>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let metrics = Arc::clone(&self.metrics);
        // No async block around it, which would have room for the task twice.
        worker.spawn(self.tracker.track_future(AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if let Err(panic) = ended {
                report_panic(&metrics, name, panic.as_ref());
            }
        })));
    }

    /// Calls `end` when the hard token is cancelled.
    pub(crate) fn at_the_end(&self, end: impl FnOnce() + Send + 'static) {
        let hard = self.shutdown.hard.clone();
        self.start(async move {
            hard.cancelled().await;
            end();
        });
    }

    /// As [`Tasks::spawn`], on a worker.
    pub(crate) fn spawn_on(&self, worker: &Arc<Worker>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let guarded = self.tracker.track_future(self.guard(name, task).instrument(self.span.clone()));
        match &self.gate {
            None => drop(worker.spawn(guarded)),
            Some(gate) => drop(worker.spawn(gate.guard(guarded))),
        }
    }

    fn guard<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (hard, metrics) = (self.shutdown.hard.clone(), Arc::clone(&self.metrics));
        async move {
            tokio::select! {
                biased;
                () = hard.cancelled() => {}
                ended = AssertUnwindSafe(task).catch_unwind() => {
                    if let Err(panic) = ended {
                        report_panic(&metrics, name, panic.as_ref());
                    }
                }
            }
        }
    }

    /// Runs a task that the pod cannot do without: after a panic it is made again and goes on.
    pub(crate) fn supervise<F>(&self, name: &'static str, make: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn(name, self.restart(name, make));
    }

    fn restart<F, M>(&self, name: &'static str, make: M) -> impl Future<Output = ()> + Send + use<F, M>
    where
        F: Future<Output = ()> + Send + 'static,
        M: Fn() -> F + Send + 'static,
    {
        let metrics = Arc::clone(&self.metrics);
        async move {
            let (mut backoff, mut started) = (RESTARTS, Instant::now());
            while let Err(panic) = AssertUnwindSafe(make()).catch_unwind().await {
                report_panic(&metrics, name, panic.as_ref());
                if started.elapsed() >= WELL {
                    backoff.reset();
                }
                tokio::time::sleep(backoff.pause()).await;
                started = Instant::now();
            }
        }
    }

    /// As [`Tasks::supervise`], on a worker.
    pub(crate) fn supervise_on<F>(&self, worker: &Arc<Worker>, name: &'static str, make: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_on(worker, name, self.restart(name, make));
    }

    #[expect(clippy::disallowed_methods, reason = "the one owner of tasks")]
    fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.tracker.track_future(task);
        match &self.gate {
            None => drop(tokio::spawn(task)),
            Some(gate) => drop(tokio::spawn(gate.guard(task))),
        }
    }

    /// Waits until every task has ended. Call it after the soft or hard token is cancelled.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many tasks run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }
}

fn report_panic(metrics: &Metrics, name: &'static str, panic: &(dyn Any + Send)) {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    metrics.task_panics_total.inc();
    tracing::error!(task = name, panic = message, "a task panicked; the pod goes on");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn tasks() -> Tasks {
        Tasks::new(Shutdown::default(), Arc::new(Metrics::new().unwrap()), tracing::Span::none())
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_task_takes_no_other_with_it() {
        let tasks = tasks();
        tasks.spawn("bad", async { panic!("on purpose") });
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn("good", async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = sender.send(());
        });
        receiver.await.unwrap();
        tasks.ended().await;
        assert_eq!(tasks.metrics.task_panics_total.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_supervised_task_starts_again_after_a_panic() {
        let (tasks, starts) = (tasks(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&starts);
        tasks.supervise("vital", move || {
            let start = counter.fetch_add(1, Ordering::SeqCst);
            async move { assert!(start >= 2, "on purpose") }
        });
        tasks.ended().await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_hard_token_ends_what_would_not_end() {
        let tasks = tasks();
        tasks.spawn("stuck", std::future::pending());
        tasks.shutdown().hard.cancel();
        tasks.ended().await;
    }
}
