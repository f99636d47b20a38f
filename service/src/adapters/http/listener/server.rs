//! The listener: connections are accepted within bounds, and given to a thread. What happens on one is `connection`'s part.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{self, Arrival},
    intake::Intake,
    places::{Place, Places},
};
use crate::{
    adapters::http::forwarded::Peer,
    runtime::{
        backoff::Backoff,
        lifecycle::Tasks,
        listen::listen,
        workers::{Team, Worker},
    },
};

/// Connections that are no sockets yet, those included whose requests wait for us; far above what the places of pending
/// connections and the turns of connects let come together. Beyond it new ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16 * 1024;
/// Connections that the kernel keeps until they are accepted; it keeps no more than `net.core.somaxconn`, usually as many. Anyone
/// who comes when it is full tries again after a second.
const BACKLOG: u32 = 4096;
/// What the system keeps for a client beside what is on its way already. It would keep megabytes: for a client that does not
/// read, beside all that a mailbox keeps, and one that reads slowly would look for seconds as if it did not.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 * 1024;
/// Wait after an accept failed for want of something (file descriptors, memory): trying again at once would only burn the CPU.
const ACCEPT_PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(100));
/// Pending connections that go then.
const ROOM: usize = 32;

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl HttpServer {
    /// Binds the address; port 0 picks a free one. Connections queue up until [`HttpServer::serve`].
    ///
    /// # Errors
    /// When the address can't be had.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address, BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { listener: listener.into_std()?, address })
    }

    /// The address that it is bound to, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts to answer, in `tasks`, and returns at once. When `stop` is cancelled, the listener closes and each connection ends
    /// after the request that is under way. Sockets are not its business any more.
    ///
    /// Each connection lives on one of the workers from its first byte on, with the socket that it becomes.
    pub fn serve(self, app: Router, intake: Intake, tasks: &Tasks, workers: &Team, stop: CancellationToken) {
        let places = Places::new(intake.listener(), Arc::clone(tasks.metrics()));
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let acceptor = Acceptor { app, intake, tasks: tasks.clone(), workers: Arc::clone(workers), stop, places, room };
        let listener = Arc::new(self.listener);
        for worker in workers.iter() {
            let (acceptor, here, listener) = (acceptor.clone(), Arc::clone(worker), Arc::clone(&listener));
            tasks.supervise_on(worker, "http listener", move || acceptor.clone().run(Arc::clone(&here), Arc::clone(&listener)));
        }
    }
}

/// What accepts, on each worker from the one queue that the kernel has for all of them.
#[derive(Clone)]
struct Acceptor {
    app: Router,
    intake: Intake,
    tasks: Tasks,
    workers: Team,
    stop: CancellationToken,
    places: Arc<Places>,
    room: Arc<Semaphore>,
}

/// A connection that was accepted.
struct Accepted {
    stream: TcpStream,
    peer: Peer,
    place: Arc<Place>,
    permit: OwnedSemaphorePermit,
}

impl Acceptor {
    async fn run(self, here: Arc<Worker>, listener: Arc<std::net::TcpListener>) {
        match listener.try_clone().and_then(TcpListener::from_std) {
            Ok(listener) => self.accept_all(&here, listener).await,
            Err(error) => tracing::error!(error = %error, "the listener can't be had on this worker; the others go on"),
        }
    }

    async fn accept_all(self, here: &Arc<Worker>, listener: TcpListener) {
        let mut failures = 0_u64;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = self.accept(&listener) => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    if failures > 0 {
                        tracing::info!(failures, "connections are accepted again");
                        failures = 0;
                    }
                    self.start(here, accepted);
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(error = %error, "connections can't be accepted now; trying on");
                    }
                    self.places.make_room(ROOM);
                    sleep(ACCEPT_PAUSES.nth(failures)).await;
                }
            }
        }
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<Accepted> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        // Frames are small and must not wait for one another; a stream that refuses is on its way out anyway.
        let _ = stream.set_nodelay(true);
        // Other systems can't be asked for it (socket2).
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        let peer = Peer(peer.ip());
        let place = self.places.enter(self.intake.share(peer), self.intake.bounds());
        Ok(Accepted { stream, peer, place, permit })
    }

    fn start(&self, here: &Arc<Worker>, accepted: Accepted) {
        let Accepted { stream, peer, place, permit } = accepted;
        let other = here.outdone_by(&self.workers);
        let worker = other.unwrap_or(here);
        let arrival = Arrival {
            peer,
            place,
            app: self.app.clone(),
            intake: self.intake.clone(),
            stop: self.stop.clone(),
            worker: Arc::clone(worker),
        };
        if other.is_none() {
            self.tasks.spawn_on(worker, "http connection", async move {
                connection::serve(stream, arrival).await;
                drop(permit);
            });
            return;
        }
        // Out of this runtime, to be waited for in that one.
        let Ok(stream) = stream.into_std() else { return };
        self.tasks.spawn_on(worker, "http connection", async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                connection::serve(stream, arrival).await;
            }
            drop(permit);
        });
    }
}

/// Did the accept fail because that one client left again, rather than for want of something here?
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests;
