//! The floor: the smallest server that does for its sockets what no server can leave out. Pods are measured against it.
//!
//! One thread a core, each with a runtime of its own and its share of the sockets; one of them reads events from a plain NATS
//! subscription. What there is to read is taken in one go; the events of a subject become one run of encoded frames, which every
//! socket of that subject gets in one write. No tokens, no sessions, no Redis, no acknowledgements, no metrics, no logs. It is a
//! yardstick, not a gateway.
//!
//! Behind a durable consumer, it is a yardstick for what the stream itself adds.

mod burst;
mod socket;
mod subscription;
mod upgrade;
mod worker;

use std::{net::SocketAddr, sync::Arc, thread};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime,
    sync::mpsc,
};

use subscription::Subscription;
use worker::Work;

/// What the line begins with that says the address.
pub(crate) const ANNOUNCEMENT: &str = "the floor listens on ";
/// Batches of events, and new sockets, that may wait for a thread.
const QUEUE: usize = 4096;
/// Connects that the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;

/// Serves until the process is ended; from the floor's durable, with an acknowledgement of each event, if `durable`.
///
/// # Errors
/// When the address can't be had, or the connection to NATS is lost.
pub(crate) fn run(nats: SocketAddr, listen: SocketAddr, durable: bool) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (queues, works): (Vec<_>, Vec<_>) = (0..cores).map(|_| mpsc::channel(QUEUE)).unzip();
    let mut works = works.into_iter();
    let first = works.next().context("a machine without a core")?;
    for work in works {
        thread::spawn(move || on_this_thread(worker::serve(work)));
    }
    on_this_thread(async move {
        let listener = bind(listen)?;
        let subscription = Subscription::open(nats, durable).await?;
        announce(listener.local_addr()?);
        let (sockets, events) = (queues.clone(), queues);
        tokio::select! {
            ended = accept(&listener, &sockets) => ended,
            ended = distribute(subscription, &events) => ended,
            () = worker::serve(first) => Err(anyhow!("nobody has work any more")),
        }
    })?
}

/// Runs a future, and the tasks that it keeps, on a runtime of this thread alone.
fn on_this_thread<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build().context("no runtime")?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}

/// A listener that a storm of connects fits into.
fn bind(address: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address)?;
    Ok(socket.listen(BACKLOG)?)
}

#[expect(clippy::print_stdout, reason = "the process that started it reads the address there")]
fn announce(address: SocketAddr) {
    println!("{ANNOUNCEMENT}{address}");
}

/// Gives the sockets to the threads in turn.
async fn accept(listener: &TcpListener, threads: &[mpsc::Sender<Work>]) -> Result<()> {
    for thread in threads.iter().cycle() {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Each runtime watches its own sockets.
        thread.send(Work::Socket(stream.into_std()?)).await.context("a thread has ended")?;
    }
    Ok(())
}

/// Gives what there is of events to every thread.
async fn distribute(mut subscription: Subscription, threads: &[mpsc::Sender<Work>]) -> Result<()> {
    loop {
        let bursts = Arc::new(subscription.next().await?);
        for thread in threads {
            thread.send(Work::Events(Arc::clone(&bursts))).await.context("a thread has ended")?;
        }
    }
}
