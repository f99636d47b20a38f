//! Addresses of the loopback network.

use std::net::{SocketAddr, TcpListener};

use anyhow::Result;

/// An address of the loopback network that nobody listens at.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Does somebody listen there?
pub async fn listens(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}
