//! Threads that sockets are pinned to, one a processor core.
//!
//! A work-stealing runtime wakes a task on whatever thread is free, with a queue, a lock and often a syscall each time; for an event
//! that goes to thousands of sockets that is most of its cost. Here a connection is handed to one thread when it is accepted and stays there: its
//! task, timers and reads are that thread's alone. Whoever wakes sockets from elsewhere leaves their wakers in the thread's inbox, and wakes the thread once for
//! all of them.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Wake, Waker},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{runtime, sync::Notify};
use tokio_util::sync::CancellationToken;

/// Checks remotely spawned tasks every so many ticks (tokio's default: 31), or connections that another worker accepted starve in a storm.
const TURNS: u32 = 2;
/// How long what still runs on a thread may hold up its end.
const SHUTDOWN: Duration = Duration::from_secs(1);

thread_local! {
    static CURRENT: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

/// One thread, with a runtime of its own.
#[derive(Debug)]
pub struct Worker {
    runtime: runtime::Handle,
    /// At most one waker a socket: a waker is taken out of its socket when it is put here.
    inbox: Mutex<Vec<Waker>>,
    filled: Notify,
}

impl Worker {
    /// The worker that this thread is; none on any other thread.
    #[must_use]
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Where to spawn what is to stay on this worker.
    #[must_use]
    pub fn runtime(&self) -> &runtime::Handle {
        &self.runtime
    }

    /// How many tasks live here.
    #[must_use]
    pub fn load(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// Wakes a task of this worker, from any thread.
    pub fn wake(&self, waker: Waker) {
        let is_here = CURRENT.with_borrow(|current| current.as_deref().is_some_and(|worker| std::ptr::eq(worker, self)));
        if is_here {
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

/// Waits for something that another thread does, such as an answer. On a worker, many such waits that end at once wake its thread once; elsewhere this is just
/// the future. Cancel-safe if the future is.
pub async fn with_batched_wakes<F: Future>(future: F) -> F::Output {
    let Some(worker) = Worker::current() else { return future.await };
    let mut future = pin!(future);
    poll_fn(|cx| {
        let waker = Waker::from(Arc::new(BatchedWaker { worker: Arc::clone(&worker), waker: cx.waker().clone() }));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

/// The workers of a process. Dropping it ends their threads, and with them all tasks that still run there.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Arc<Worker>>,
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
        let mut workers = Self { workers: Vec::new(), threads: Vec::new(), stop: CancellationToken::new() };
        for number in 0..count.max(1) {
            let runtime = runtime::Builder::new_current_thread().enable_all().global_queue_interval(TURNS).build()?;
            let worker = Arc::new(Worker { runtime: runtime.handle().clone(), inbox: Mutex::default(), filled: Notify::new() });
            workers.workers.push(Arc::clone(&worker));
            let stop = workers.stop.clone();
            let thread = std::thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
                CURRENT.set(Some(Arc::clone(&worker)));
                runtime.block_on(async {
                    tokio::select! {
                        () = worker.run() => {}
                        () = stop.cancelled() => {}
                    }
                });
                runtime.shutdown_timeout(SHUTDOWN);
            })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<Worker>] {
        &self.workers
    }

    /// The worker with the fewest tasks: where the next connection goes.
    #[must_use]
    pub fn least_loaded(&self) -> &Arc<Worker> {
        self.workers.iter().min_by_key(|worker| worker.load()).unwrap_or(&self.workers[0])
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
        let worker = Arc::clone(&workers.all()[1]);
        let (waker, rounds) = (Arc::new(AtomicWaker::new()), Arc::new(AtomicUsize::new(0)));
        let (theirs, counted) = (Arc::clone(&waker), Arc::clone(&rounds));
        let (seen_sender, mut seen) = mpsc::unbounded_channel();
        let task = worker.runtime().spawn(poll_fn(move |cx| {
            theirs.register(cx.waker());
            let here = Worker::current().map(|worker| Arc::as_ptr(&worker) as usize);
            let _ = seen_sender.send(here);
            if counted.fetch_add(1, Ordering::Relaxed) == 3 { Poll::Ready(()) } else { Poll::Pending }
        }));
        for _ in 0..3 {
            assert_eq!(seen.recv().await.unwrap(), Some(Arc::as_ptr(&worker) as usize));
            worker.wake(waker.take().unwrap());
        }
        task.await.unwrap();
        assert!(Worker::current().is_none());
    }

    #[tokio::test]
    async fn an_answer_from_elsewhere_wakes_who_waits_on_a_core() {
        let workers = Workers::start(1).unwrap();
        let (sender, receiver) = oneshot::channel();
        let waiting = workers.all()[0].runtime().spawn(with_batched_wakes(receiver));
        sender.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
        assert_eq!(with_batched_wakes(std::future::ready(8)).await, 8);
    }

    #[tokio::test]
    async fn what_comes_from_elsewhere_has_its_turns_however_busy_a_core_is() {
        const COMERS: usize = 20;
        let workers = Workers::start(1).unwrap();
        let worker = Arc::clone(&workers.all()[0]);
        let turns = Arc::new(AtomicUsize::new(0));
        let (here, is_here) = std::sync::mpsc::channel::<()>();
        let busy = Arc::clone(&turns);
        let mut begun = false;
        // It holds the worker until all who come are there, and then always has something to do.
        worker.runtime().spawn(poll_fn(move |cx| {
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
                worker.runtime().spawn(async move { turns.load(Ordering::Relaxed) })
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
        let (_hold, held) = oneshot::channel::<()>();
        let first = workers.least_loaded();
        first.runtime().spawn(held);
        assert!(!Arc::ptr_eq(workers.least_loaded(), first));
    }

    #[tokio::test]
    async fn tasks_end_with_their_cores() {
        let workers = Workers::start(1).unwrap();
        let (alive, ended) = oneshot::channel::<()>();
        workers.all()[0].runtime().spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(workers);
        assert!(ended.await.is_err());
    }
}
