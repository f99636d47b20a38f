//! A door in front of a listener of a dev pod: what comes through can be stopped for a while, as if the process behind were
//! frozen, or cut, as if it were gone. The door keeps its port while the pod behind comes and goes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, watch},
};

use crate::runtime::{backoff::Backoff, lifecycle::Tasks};

/// Connections through one door; more wait to be accepted. A dev fleet has a handful.
const MAX_CONNECTIONS: usize = 4096;
/// Bytes on their way through, a direction.
const BUFFER: usize = 16 * 1024;
/// How long what a pod said last may take to come through a door that was shut behind it: a process that ends leaves its bytes to
/// the kernel, too.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Wait after an accept failed for want of file descriptors.
const ACCEPT_PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(100));

/// What a door lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    /// Where it leads; nowhere while the pod is stopped.
    to: Option<SocketAddr>,
    /// Nothing moves, nothing ends.
    frozen: bool,
}

/// A bound door, shut until [`Gate::open`].
#[derive(Debug)]
pub(super) struct Gate {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Gate {
    /// Binds the door and starts to answer, in `tasks`.
    ///
    /// # Errors
    /// When the address can't be had.
    pub(super) async fn bind(address: SocketAddr, tasks: &Tasks) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = watch::Sender::new(State::default());
        let (accepted, owner) = (state.subscribe(), tasks.clone());
        tasks.spawn("door", accept(listener, accepted, owner));
        Ok(Self { address, state })
    }

    /// Where to knock.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to this listener from now on.
    pub(super) fn open(&self, to: SocketAddr) {
        self.state.send_replace(State { to: Some(to), frozen: false });
    }

    /// Breaks every connection, once what came from the pod is through, and each new one at once.
    pub(super) fn shut(&self) {
        self.state.send_replace(State::default());
    }

    /// Stops everything that goes through, or lets it go on.
    pub(super) fn freeze(&self, frozen: bool) {
        self.state.send_modify(|state| state.frozen = frozen);
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>, tasks: Tasks) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSES.nth(1)).await;
            continue;
        };
        let mut state = state.clone();
        tasks.spawn("door connection", async move {
            pass(stream, &mut state).await;
            drop(permit);
        });
    }
}

/// Passes bytes both ways until either side ends, or the door leads elsewhere.
async fn pass(outside: TcpStream, state: &mut watch::Receiver<State>) {
    // One that came to a frozen door waits in front of it, as in the backlog of a frozen process.
    let Some(to) = thawed(state).await else { return };
    let Ok(inside) = TcpStream::connect(to).await else { return };
    // A stream that refuses is on its way out anyway.
    let _ = (outside.set_nodelay(true), inside.set_nodelay(true));
    let ((from_outside, to_outside), (from_inside, to_inside)) = (outside.into_split(), inside.into_split());
    let mut moved = state.clone();
    let (inward, outward) = (state.clone(), state.clone());
    let cut = async {
        let _ = moved.wait_for(|now| now.to != Some(to)).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        () = cut => {}
        _ = async { tokio::join!(pump(from_outside, to_inside, inward), pump(from_inside, to_outside, outward)) } => {}
    }
}

/// Waits until nothing is frozen; where the door leads then.
async fn thawed(state: &mut watch::Receiver<State>) -> Option<SocketAddr> {
    state.wait_for(|now| !now.frozen).await.ok().and_then(|now| now.to)
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; BUFFER];
    while state.wait_for(|now| !now.frozen).await.is_ok() {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { break };
        // What was read while the door froze waits too.
        if state.wait_for(|now| !now.frozen).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, runtime::lifecycle::Shutdown};

    /// A door to a server that echoes, and a connection through it.
    async fn echo() -> (Gate, TcpStream, Tasks) {
        let tasks = Tasks::new(Shutdown::default(), Arc::new(Metrics::new().unwrap()), tracing::Span::none());
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate = Gate::bind("127.0.0.1:0".parse().unwrap(), &tasks).await.unwrap();
        gate.open(server.local_addr().unwrap());
        tasks.spawn("echo", async move {
            while let Ok((stream, _)) = server.accept().await {
                let (mut read, mut write) = stream.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        let client = TcpStream::connect(gate.address()).await.unwrap();
        (gate, client, tasks)
    }

    async fn answer(client: &mut TcpStream) -> io::Result<u8> {
        tokio::time::timeout(Duration::from_secs(10), client.read_u8()).await.unwrap()
    }

    #[tokio::test]
    async fn a_frozen_door_keeps_connections_and_bytes_until_it_thaws() {
        let (gate, mut client, _tasks) = echo().await;
        client.write_all(b"a").await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap(), b'a');
        gate.freeze(true);
        client.write_all(b"b").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await.is_err(), "nothing comes through");
        gate.freeze(false);
        assert_eq!(answer(&mut client).await.unwrap(), b'b');
    }

    #[tokio::test]
    async fn a_shut_door_breaks_what_is_open_and_what_comes_even_while_frozen() {
        let (gate, mut client, _tasks) = echo().await;
        client.write_all(b"a").await.unwrap();
        assert_eq!(answer(&mut client).await.unwrap(), b'a');
        gate.freeze(true);
        gate.shut();
        assert!(answer(&mut client).await.is_err());
        let mut late = TcpStream::connect(gate.address()).await.unwrap();
        assert!(answer(&mut late).await.is_err());
    }
}
