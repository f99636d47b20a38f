//! The attackers: what one process of strangers does, with one thread, until its time is over.

mod grpc;
mod http;
mod sockets;
pub mod wire;

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream, tcp::OwnedReadHalf},
    task::JoinSet,
    time::{sleep, timeout},
};

/// A session that strangers may open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pass {
    /// As in `/ws/acme/agent-1`.
    pub path: String,
    /// A token that is good for it.
    pub token: String,
}

/// What a process of strangers shall do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// One of [`names`].
    pub name: String,
    /// Where browsers connect.
    pub http: SocketAddr,
    /// Where pods connect.
    pub grpc: SocketAddr,
    /// Where orchestrators and scrapers ask.
    pub probes: SocketAddr,
    /// What every page of a browser has.
    pub api_key: String,
    /// Sessions that may be opened.
    pub passes: Vec<Pass>,
    /// Connections, or what else there are many of.
    pub count: usize,
    /// The last part but one of the strangers' address.
    pub street: u8,
    /// Has each of them an address of its own?
    pub spread: bool,
    /// How long.
    pub seconds: u64,
}

/// Addresses that an attack is spread over, a street.
const HOUSES: usize = 250;

impl Order {
    fn source(&self, index: usize) -> IpAddr {
        let (street, house) = if self.spread { (index / HOUSES, index % HOUSES) } else { (0, 0) };
        let street = self.street.saturating_add(u8::try_from(street).unwrap_or(u8::MAX));
        IpAddr::V4(Ipv4Addr::new(127, 0, street, u8::try_from(house).unwrap_or_default() + 1))
    }

    async fn dial(&self, index: usize, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.source(index), 0))?;
        socket.connect(to).await
    }

    /// With so little room for what arrives that a server soon can't send on.
    async fn dial_narrow(&self, index: usize, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.source(index), 0))?;
        socket.set_recv_buffer_size(NARROW)?;
        socket.connect(to).await
    }
}

const NARROW: u32 = 4096;
/// Before a connection that was ended is opened again: what is measured is what connections hold, not how many two cores can open.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Counts of what was done, shared by the tasks of a process.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<String, u64>>>);

impl Tally {
    fn add(&self, what: &str, count: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(what) {
            Some(so_far) => *so_far += count,
            None => {
                counts.insert(what.to_owned(), count);
            }
        }
    }

    fn one(&self, what: &str) {
        self.add(what, 1);
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What each stranger does, again and again.
trait Stranger: Send + Sync + 'static {
    /// Ends when the connection does.
    fn live(&self, index: usize) -> impl Future<Output = io::Result<()>> + Send;
}

impl<F, L> Stranger for F
where
    F: Fn(usize) -> L + Send + Sync + 'static,
    L: Future<Output = io::Result<()>> + Send,
{
    fn live(&self, index: usize) -> impl Future<Output = io::Result<()>> + Send {
        self(index)
    }
}

/// Has so many of them at a time, each starting anew when it has ended.
async fn crowd<S: Stranger>(count: usize, tally: Tally, stranger: S) {
    let stranger = Arc::new(stranger);
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let (stranger, tally) = (Arc::clone(&stranger), tally.clone());
        tasks.spawn(async move {
            loop {
                tally.one(if stranger.live(index).await.is_ok() { "ended" } else { "broken" });
                sleep(BACK_OFF).await;
            }
        });
        // A thousand connections at once would not fit the queue that the kernel keeps for a listener.
        if index % 50 == 49 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    tasks.join_all().await;
}

/// Reads and forgets.
async fn discard(mut from: OwnedReadHalf) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while from.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Does what was ordered until the time is over.
///
/// # Errors
/// When there is no such attack.
pub async fn perform(order: Order) -> Result<BTreeMap<String, u64>> {
    let (tally, time) = (Tally::default(), Duration::from_secs(order.seconds));
    let Some((_, begin)) = ATTACKS.iter().find(|(name, _)| *name == order.name) else {
        bail!("there is no attack {}", order.name)
    };
    let _ = timeout(time, begin(Arc::new(order), tally.clone())).await;
    Ok(tally.counts())
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
type Begin = fn(Arc<Order>, Tally) -> Work;

macro_rules! attacks {
    ($($name:literal => $begin:path,)*) => {
        const ATTACKS: &[(&str, Begin)] = &[$(($name, |order, tally| Box::pin($begin(order, tally)))),*];
    };
}

attacks! {
    "idle" => http::idle,
    "idle-probes" => http::idle_probes,
    "pipeline" => http::pipeline,
    "slow-headers" => http::slow_headers,
    "slow-body" => http::slow_body,
    "many-headers" => http::many_headers,
    "http2-preface" => http::http2_preface,
    "refused" => http::refused,
    "key-guessing" => http::key_guessing,
    "made-up-tokens" => http::made_up_tokens,
    "long-request-ids" => http::long_request_ids,
    "connects" => sockets::connects,
    "connects-of-many" => sockets::connects_of_many,
    "select-chats" => sockets::select_chats,
    "storm" => sockets::storm,
    "pongs" => sockets::pongs,
    "pings" => sockets::pings,
    "pings-unread" => sockets::pings_unread,
    "binary" => sockets::binary,
    "continuations" => sockets::continuations,
    "unread-sockets" => sockets::unread,
    "unread-upgrades" => sockets::unread_upgrades,
    "grpc-idle" => grpc::idle,
    "grpc-settings-unread" => grpc::settings_unread,
    "grpc-calls-unread" => grpc::calls_unread,
    "grpc-pings" => grpc::pings,
    "grpc-ping-flood" => grpc::ping_flood,
    "grpc-watches" => grpc::watches,
    "grpc-resets" => grpc::resets,
    "grpc-continuations" => grpc::continuations,
    "grpc-metadata" => grpc::metadata,
    "grpc-settings" => grpc::settings,
    "grpc-bombs" => grpc::bombs,
    "grpc-bodies" => grpc::bodies,
}

/// What [`perform`] can do.
pub fn names() -> impl Iterator<Item = &'static str> {
    ATTACKS.iter().map(|(name, _)| *name)
}
