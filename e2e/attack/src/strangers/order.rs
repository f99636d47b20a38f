//! What a process of strangers shall do, and where it connects from.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpSocket, TcpStream};

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
    /// One of [`names`](super::perform::names).
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

/// Bytes of a receive buffer that is soon full.
const NARROW: u32 = 4096;
/// Addresses that an attack is spread over, a street.
const HOUSES: usize = 250;

impl Order {
    fn source(&self, index: usize) -> IpAddr {
        let (street, house) = if self.spread { (index / HOUSES, index % HOUSES) } else { (0, 0) };
        let street = self.street.saturating_add(u8::try_from(street).unwrap_or(u8::MAX));
        IpAddr::V4(Ipv4Addr::new(127, 0, street, u8::try_from(house).unwrap_or_default() + 1))
    }

    /// Connects from the address of this stranger.
    pub(super) async fn dial(&self, index: usize, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.source(index), 0))?;
        socket.connect(to).await
    }

    /// Connects with so little room for what arrives that a server soon can't send on.
    pub(super) async fn dial_narrow(&self, index: usize, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.source(index), 0))?;
        socket.set_recv_buffer_size(NARROW)?;
        socket.connect(to).await
    }
}
