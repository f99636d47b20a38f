//! Threads that sockets are pinned to, one a processor core.
//!
//! A work-stealing runtime wakes a task on whatever thread is free, with a queue, a lock and often a syscall each time; for an
//! event that goes to thousands of sockets that is most of its cost. Here a connection is handed to one thread when it is
//! accepted and stays there: its task, timers and reads are that thread's alone. Anyone who wakes sockets from elsewhere leaves
//! their wakers in the thread's inbox, and wakes the thread once for all of them.
//!
//! Tests on paused time can have no threads, as each would have a clock of its own: there a worker is a part of the runtime that
//! they run on ([`Workers::of_the_runtime`]), with the same inbox.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::pin,
    ptr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Wake, Waker},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{runtime, sync::Notify, task};
use tokio_util::sync::CancellationToken;

/// Checks remotely spawned tasks every so many ticks (tokio's default: 31), or connections that another worker accepted starve in
/// a storm.
const TURNS: u32 = 2;
/// How long what still runs on a thread may hold up its end.
const SHUTDOWN: Duration = Duration::from_secs(1);

thread_local! {
    /// Whose task this thread runs; compared, and never looked into.
    static CURRENT: Cell<*const Worker> = const { Cell::new(ptr::null()) };
}

/// One thread, with a runtime of its own.
#[derive(Debug)]
pub struct Worker {
    runtime: runtime::Handle,
    /// False for one that shares its runtime with what is on no worker.
    has_thread: bool,
    /// At most one waker a socket: a waker is taken out of its socket when it is put here.
    inbox: Mutex<Vec<Waker>>,
    filled: Notify,
}

impl Worker {
    fn new(runtime: runtime::Handle, has_thread: bool) -> Arc<Self> {
        Arc::new(Self { runtime, has_thread, inbox: Mutex::default(), filled: Notify::new() })
    }

    /// Runs a task on this worker until it ends.
    pub fn spawn<F>(self: &Arc<Self>, task: F) -> task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        if self.has_thread {
            return self.runtime.spawn(task);
        }
        let (worker, mut task) = (Arc::clone(self), Box::pin(task));
        self.runtime.spawn(poll_fn(move |cx| {
            let _inside = worker.enter();
            task.as_mut().poll(cx)
        }))
    }

    /// Its runtime, to be watched.
    #[must_use]
    pub fn runtime(&self) -> &runtime::Handle {
        &self.runtime
    }

    /// How many tasks live here.
    #[must_use]
    pub fn load(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// The worker that has so many fewer tasks than this one that a new connection should go there. The kernel does not share
    /// them out evenly.
    #[must_use]
    pub(crate) fn outdone_by<'a>(&self, all: &'a [Arc<Self>]) -> Option<&'a Arc<Self>> {
        let least = all.iter().min_by_key(|worker| worker.load())?;
        let fair = least.load() + least.load() / 8 + 16;
        (self.load() > fair).then_some(least)
    }

    /// Wakes a task of this worker, from any thread.
    pub fn wake(&self, waker: Waker) {
        if ptr::eq(CURRENT.get(), self) {
            waker.wake();
            return;
        }
        let first = {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.push(waker);
            inbox.len() == 1
        };
        if first {
            self.filled.notify_one();
        }
    }

    /// Waits, in a task of this worker, for something that another thread does, such as an answer: many such waits that end at
    /// once wake the worker once. Cancel-safe if the future is.
    pub async fn wait_for<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let waker = Waker::from(Arc::new(BatchedWaker { worker: Arc::clone(self), waker: cx.waker().clone() }));
            future.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await
    }

    /// What runs on this thread until that is dropped is on this worker.
    fn enter(&self) -> Inside {
        Inside { before: CURRENT.replace(self) }
    }

    /// Wakes what the inbox holds, until dropped.
    async fn run(&self) {
        let mut wakers = Vec::new();
        loop {
            self.filled.notified().await;
            std::mem::swap(&mut wakers, &mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
            wakers.drain(..).for_each(Waker::wake);
        }
    }
}

/// See [`Worker::enter`].
struct Inside {
    before: *const Worker,
}

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// A waker that goes through the inbox of a worker.
struct BatchedWaker {
    worker: Arc<Worker>,
    waker: Waker,
}

impl Wake for BatchedWaker {
    fn wake(self: Arc<Self>) {
        self.worker.wake(self.waker.clone());
    }
}

/// Workers that share their work, at least one.
pub(crate) type Team = Arc<[Arc<Worker>]>;

/// Owns the workers of a team. Dropping it ends their threads, and with them all tasks that still run there; so it must not be
/// dropped on one of them.
#[derive(Debug)]
pub struct Workers {
    team: Team,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(count: usize) -> io::Result<Self> {
        Self::named("sockets", count)
    }

    /// The same, for other work than sockets: its threads are told apart by that name.
    ///
    /// # Errors
    /// As for [`Workers::start`].
    pub fn named(name: &str, count: usize) -> io::Result<Self> {
        let mut workers = Vec::new();
        let mut all = Self { team: Arc::default(), threads: Vec::new(), stop: CancellationToken::new() };
        for number in 0..count.max(1) {
            let runtime = runtime::Builder::new_current_thread().enable_all().global_queue_interval(TURNS).build()?;
            let worker = Worker::new(runtime.handle().clone(), true);
            workers.push(Arc::clone(&worker));
            let stop = all.stop.clone();
            let thread = std::thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
                let _inside = worker.enter();
                runtime.block_on(run_until(&stop, &worker));
                runtime.shutdown_timeout(SHUTDOWN);
            })?;
            all.threads.push(thread);
        }
        all.team = workers.into();
        Ok(all)
    }

    /// One without a thread: a part of the runtime that this is called within, and on its clock, which may be paused. For tests.
    #[must_use]
    pub fn of_the_runtime() -> Self {
        let (worker, stop) = (Worker::new(runtime::Handle::current(), false), CancellationToken::new());
        let (ours, stopped) = (Arc::clone(&worker), stop.clone());
        worker.runtime.spawn(async move { run_until(&stopped, &ours).await });
        Self { team: Arc::new([worker]), threads: Vec::new(), stop }
    }

    /// All workers, on any of which a socket may live.
    #[must_use]
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// The first of them: the only one of a runtime's.
    #[must_use]
    pub fn first(&self) -> &Arc<Worker> {
        &self.team[0]
    }
}

async fn run_until(stop: &CancellationToken, worker: &Worker) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = worker.run() => {}
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

/// What pods are served on.
#[derive(Debug, Clone)]
pub struct Teams {
    /// Connections of browsers, with the sockets that they become.
    pub sockets: Team,
    /// Probes, where they have a port of their own: whatever befalls a pod's runtime and its sockets, a probe does not wait for
    /// it.
    pub probes: Team,
}

/// Owns what the pods of a process are served on; dropped last, after all that may run there.
#[derive(Debug)]
pub struct PodWorkers {
    sockets: Workers,
    probes: Workers,
}

impl PodWorkers {
    /// Starts one a processor core for sockets, and one for probes.
    ///
    /// # Errors
    /// As for [`Workers::start`].
    pub fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { sockets: Workers::start(cores)?, probes: Workers::named("probes", 1)? })
    }

    /// All teams of workers that this process has.
    #[must_use]
    pub fn teams(&self) -> Teams {
        Teams { sockets: Arc::clone(&self.sockets.team), probes: Arc::clone(&self.probes.team) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Poll,
    };

    use futures_util::task::AtomicWaker;
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn a_task_stays_on_its_core_and_is_woken_from_elsewhere() {
        let workers = Workers::start(2).unwrap();
        let worker = Arc::clone(&workers.team()[1]);
        let (waker, rounds) = (Arc::new(AtomicWaker::new()), Arc::new(AtomicUsize::new(0)));
        let (theirs, counted) = (Arc::clone(&waker), Arc::clone(&rounds));
        let (seen_sender, mut seen) = mpsc::unbounded_channel();
        let task = worker.spawn(poll_fn(move |cx| {
            theirs.register(cx.waker());
            let _ = seen_sender.send(CURRENT.get() as usize);
            if counted.fetch_add(1, Ordering::Relaxed) == 3 { Poll::Ready(()) } else { Poll::Pending }
        }));
        for _ in 0..3 {
            assert_eq!(seen.recv().await.unwrap(), Arc::as_ptr(&worker) as usize);
            worker.wake(waker.take().unwrap());
        }
        task.await.unwrap();
        assert!(CURRENT.get().is_null());
    }

    #[tokio::test]
    async fn an_answer_from_elsewhere_wakes_who_waits_on_a_core() {
        let workers = Workers::start(1).unwrap();
        let (sender, receiver) = oneshot::channel();
        let worker = Arc::clone(workers.first());
        let waiting = workers.first().spawn(async move { worker.wait_for(receiver).await });
        sender.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
        assert_eq!(workers.first().wait_for(std::future::ready(8)).await, 8);
    }

    #[tokio::test]
    async fn what_comes_from_elsewhere_has_its_turns_however_busy_a_core_is() {
        const COMERS: usize = 20;
        let workers = Workers::start(1).unwrap();
        let worker = Arc::clone(workers.first());
        let turns = Arc::new(AtomicUsize::new(0));
        let (here, is_here) = std::sync::mpsc::channel::<()>();
        let busy = Arc::clone(&turns);
        let mut begun = false;
        // It holds the worker until all who come are there, and then always has something to do.
        worker.spawn(poll_fn(move |cx| {
            if !begun {
                is_here.recv().unwrap();
                begun = true;
            }
            busy.fetch_add(1, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let comers: Vec<_> = (0..COMERS)
            .map(|_| {
                let turns = Arc::clone(&turns);
                worker.spawn(async move { turns.load(Ordering::Relaxed) })
            })
            .collect();
        here.send(()).unwrap();
        let mut last = 0;
        for comer in comers {
            last = comer.await.unwrap();
        }
        assert!(last <= COMERS * 3, "the last of {COMERS} came after {last} turns");
    }

    #[tokio::test]
    async fn the_next_connection_goes_where_the_fewest_are() {
        let workers = Workers::start(2).unwrap();
        let [here, there] = [0, 1].map(|n| &workers.team()[n]);
        assert!(here.outdone_by(workers.team()).is_none());
        // More than is worth the way.
        for _ in 0..20 {
            here.spawn(std::future::pending::<()>());
        }
        assert!(here.outdone_by(workers.team()).is_some_and(|other| Arc::ptr_eq(other, there)));
        assert!(there.outdone_by(workers.team()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_without_a_thread_wakes_through_its_inbox_too() {
        let workers = Workers::of_the_runtime();
        let worker = Arc::clone(workers.first());
        let ((sender, receiver), (answer, answered)) = (oneshot::channel(), oneshot::channel());
        let waiting = worker.spawn({
            let worker = Arc::clone(&worker);
            async move {
                let is_inside = ptr::eq(CURRENT.get(), &*worker);
                answer.send(is_inside).unwrap();
                worker.wait_for(receiver).await
            }
        });
        assert!(answered.await.unwrap() && CURRENT.get().is_null());
        sender.send(7).unwrap();
        assert_eq!(worker.inbox.lock().unwrap().len(), 1, "this task is not on the worker");
        assert_eq!(waiting.await.unwrap(), Ok(7));
        drop(workers);
        task::yield_now().await;
        assert_eq!(worker.load(), 0, "what wakes has ended");
    }

    #[tokio::test]
    async fn tasks_end_with_their_cores() {
        let workers = Workers::start(1).unwrap();
        let (alive, ended) = oneshot::channel::<()>();
        workers.first().spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(workers);
        assert!(ended.await.is_err());
    }
}
