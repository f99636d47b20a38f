//! A TCP proxy that breaks: it delays, cuts, stalls and trickles, for everybody or for those who come from one address.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Chunks on their way in one direction: enough for any delay, and a bound for a stalled link.
const IN_FLIGHT: usize = 256;
/// Size of a chunk.
const CHUNK: usize = 16 * 1024;
/// Longest wait for the server behind the proxy; then the connection is dropped, as if it had been refused.
const CONNECT: Duration = Duration::from_secs(2);

/// What a link does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Passes them on.
    #[default]
    Open,
    /// Ends what is open and refuses what is new.
    Cut,
    /// Half-open: connections stay, new ones are taken, and nothing moves until the link is open again.
    Stall,
    /// Passes them on later.
    Delay(Duration),
    /// Passes on so many bytes a second.
    Trickle(usize),
}

/// Modes by source; the default for all others.
#[derive(Debug, Clone, Default)]
struct Rules {
    all: Mode,
    from: HashMap<IpAddr, Mode>,
    /// How often all that was open has been ended.
    severed: u64,
}

impl Rules {
    fn of(&self, source: IpAddr) -> Mode {
        self.from.get(&source).copied().unwrap_or(self.all)
    }
}

/// Finds the server behind a proxy, which may have moved since the last time.
pub type Lookup = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<SocketAddr>> + Send>> + Send + Sync>;

/// A running proxy; it ends when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    rules: watch::Sender<Rules>,
    to: Arc<Mutex<Lookup>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of `ip`.
    ///
    /// # Errors
    /// When it can't.
    pub async fn start(ip: IpAddr, to: Lookup) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let (rules, seen) = watch::channel(Rules::default());
        let mut tasks = JoinSet::new();
        let to = Arc::new(Mutex::new(to));
        tasks.spawn(accept(listener, Arc::clone(&to), seen));
        Ok(Self { address, rules, to, _tasks: tasks })
    }

    /// Ends what is open, with all that is on its way, and takes new connections as before.
    pub fn reset(&self) {
        self.rules.send_modify(|rules| rules.severed += 1);
    }

    /// Has another server behind it for those who connect from now on, as a name that is given to another host; and ends what is
    /// open.
    pub(crate) fn turn_to(&self, to: Lookup) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.reset();
    }

    /// Sets the mode for everybody without a mode of his own.
    pub fn set(&self, mode: Mode) {
        self.rules.send_modify(|rules| rules.all = mode);
    }

    /// Sets the mode for those who come from `source`.
    pub(crate) fn set_from(&self, source: IpAddr, mode: Mode) {
        self.rules.send_modify(|rules| {
            rules.from.insert(source, mode);
        });
    }

    /// Opens the link for everybody.
    pub fn heal(&self) {
        self.rules.send_modify(|rules| *rules = Rules { severed: rules.severed, ..Rules::default() });
    }
}

async fn accept(listener: TcpListener, to: Arc<Mutex<Lookup>>, rules: watch::Receiver<Rules>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, source)) = accepted else { continue };
                let (mode, severed) = { let rules = rules.borrow(); (rules.of(source.ip()), rules.severed) };
                if mode != Mode::Cut {
                    let to = Arc::clone(&to.lock().unwrap_or_else(PoisonError::into_inner));
                    connections.spawn(carry(socket, source.ip(), severed, to, rules.clone()));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Carries one connection until either end is done with it, or it is cut.
async fn carry(near: TcpStream, source: IpAddr, severed: u64, to: Lookup, rules: watch::Receiver<Rules>) {
    let mut cut = rules.clone();
    let work = async {
        let Some(server) = to().await else { return };
        let Ok(Ok(far)) = timeout(CONNECT, TcpStream::connect(server)).await else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        // Either end closed: both directions end, as nobody here uses half-closed connections.
        tokio::select! {
            () = pump(near_read, far_write, source, rules.clone()) => {}
            () = pump(far_read, near_write, source, rules.clone()) => {}
        }
    };
    tokio::select! {
        () = work => {}
        _ = cut.wait_for(|rules| rules.of(source) == Mode::Cut || rules.severed != severed) => {}
    }
}

async fn pump(from: OwnedReadHalf, to: OwnedWriteHalf, source: IpAddr, rules: watch::Receiver<Rules>) {
    let (queue, queued) = mpsc::channel(IN_FLIGHT);
    tokio::join!(fill(from, queue), pass_on(queued, to, source, rules));
}

async fn fill(mut from: OwnedReadHalf, queue: mpsc::Sender<(Instant, Vec<u8>)>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read) = from.read(&mut chunk).await {
        if read == 0 || queue.send((Instant::now(), chunk[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn pass_on(
    mut queued: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    source: IpAddr,
    mut rules: watch::Receiver<Rules>,
) {
    while let Some((arrived, bytes)) = queued.recv().await {
        if rules.wait_for(|rules| rules.of(source) != Mode::Stall).await.is_err() {
            return;
        }
        let mode = rules.borrow().of(source);
        let done = match mode {
            Mode::Delay(delay) => {
                sleep_until(arrived + delay).await;
                to.write_all(&bytes).await
            }
            Mode::Trickle(rate) => trickle(&mut to, &bytes, rate).await,
            Mode::Open | Mode::Cut | Mode::Stall => to.write_all(&bytes).await,
        };
        if done.is_err() {
            return;
        }
    }
}

async fn trickle(to: &mut OwnedWriteHalf, bytes: &[u8], rate: usize) -> std::io::Result<()> {
    /// Drops a second.
    const DROPS: usize = 10;
    for drop in bytes.chunks((rate / DROPS).max(1)) {
        to.write_all(drop).await?;
        sleep(Duration::from_secs(1) / DROPS as u32).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// A server that sends back what it gets, a proxy before it, and a client of the proxy.
    async fn echo() -> (Proxy, TcpStream, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut sockets = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                sockets.spawn(async move {
                    let (mut read, mut write) = socket.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let proxy =
            Proxy::start(Ipv4Addr::LOCALHOST.into(), Arc::new(move || Box::pin(async move { Some(server) }))).await.unwrap();
        let client = TcpStream::connect(proxy.address).await.unwrap();
        (proxy, client, tasks)
    }

    async fn round_trip(client: &mut TcpStream) -> Option<Duration> {
        let started = Instant::now();
        client.write_all(b"ping").await.ok()?;
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.ok()?;
        assert_eq!(&answer, b"ping");
        Some(started.elapsed())
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_open_and_refuses_what_is_new_until_it_heals() {
        let (proxy, mut client, _tasks) = echo().await;
        assert!(round_trip(&mut client).await.is_some());
        proxy.set_from(Ipv4Addr::LOCALHOST.into(), Mode::Cut);
        assert!(round_trip(&mut client).await.is_none());
        let mut refused = TcpStream::connect(proxy.address).await.unwrap();
        assert!(round_trip(&mut refused).await.is_none());
        proxy.heal();
        let mut healed = TcpStream::connect(proxy.address).await.unwrap();
        assert!(round_trip(&mut healed).await.is_some());
    }

    #[tokio::test]
    async fn a_stall_holds_bytes_back_and_loses_none() {
        let (proxy, mut client, _tasks) = echo().await;
        assert!(round_trip(&mut client).await.is_some());
        proxy.set(Mode::Stall);
        client.write_all(b"late").await.unwrap();
        let mut answer = [0; 4];
        assert!(timeout(Duration::from_millis(200), client.read_exact(&mut answer)).await.is_err());
        proxy.heal();
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"late");
    }

    #[tokio::test]
    async fn turned_to_another_server_it_ends_what_is_open_and_what_is_new_reaches_that_one() {
        let ((proxy, mut client, _tasks), (other, _client, _others)) = (echo().await, echo().await);
        assert!(round_trip(&mut client).await.is_some());
        let there = other.address;
        other.set(Mode::Delay(Duration::from_millis(60)));
        proxy.turn_to(Arc::new(move || Box::pin(async move { Some(there) })));
        proxy.heal();
        assert!(round_trip(&mut client).await.is_none());
        let mut anew = TcpStream::connect(proxy.address).await.unwrap();
        assert!(round_trip(&mut anew).await.unwrap() >= Duration::from_millis(120));
    }

    #[tokio::test]
    async fn a_delay_holds_for_both_ways_and_a_trickle_for_each_byte() {
        let (proxy, mut client, _tasks) = echo().await;
        proxy.set(Mode::Delay(Duration::from_millis(60)));
        assert!(round_trip(&mut client).await.unwrap() >= Duration::from_millis(120));
        proxy.set(Mode::Trickle(10));
        assert!(round_trip(&mut client).await.unwrap() >= Duration::from_millis(300));
    }
}
