//! Binding listeners, for both families of addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

/// Binds the address; port 0 picks a free one. `[::]` is every address of the host, IPv4 too, whatever the host's settings say of
/// it; a host without IPv6 has its IPv4 addresses bound then.
///
/// # Errors
/// When the address can't be had.
pub fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    match listen_at(address, backlog) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_without_ipv6(&error) => {
            tracing::info!(%address, "the host has no IPv6: IPv4 alone is bound");
            listen_at(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()), backlog)
        }
        outcome => outcome,
    }
}

fn listen_at(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As the standard library does: a restart must not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.bind(address)?;
    socket.listen(backlog)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let without = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| without.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn every_address_of_the_host_is_bound_in_both_families() {
        let listener = listen("[::]:0".parse().unwrap(), 16).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            TcpStream::connect((host, port)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_address_is_bound_alone() {
        let listener = listen("[::1]:0".parse().unwrap(), 16).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("::1", port)).await.unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    }

    #[test]
    fn a_host_without_ipv6_is_told_from_a_port_in_use() {
        assert!(is_without_ipv6(&io::Error::from_raw_os_error(rustix::io::Errno::AFNOSUPPORT.raw_os_error())));
        assert!(!is_without_ipv6(&io::Error::from(io::ErrorKind::AddrInUse)));
    }
}
