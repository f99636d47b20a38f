//! Where a client is: the address that its share of places and its rates go by, and that lines about it carry.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// The address of the sender of a request, as far as it can be known: behind a trusted proxy the one that the proxy names, else
/// that of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    address: Option<IpAddr>,
    is_proxy: bool,
}

/// Who shares one bucket or one share: an IPv4 address, or a /64 of IPv6, of which each host has 2^64 addresses to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientShare(IpAddr);

impl ClientAddress {
    /// Nobody knows: no connection is behind it.
    pub const UNKNOWN: Self = Self { address: None, is_proxy: false };

    /// That of a client, which has a share of the limits by it.
    #[must_use]
    pub fn of_client(address: IpAddr) -> Self {
        Self { address: Some(address.to_canonical()), is_proxy: false }
    }

    /// A trusted proxy's, which named no client: itself the client, as a health check is, or many clients in one.
    #[must_use]
    pub fn of_proxy(address: IpAddr) -> Self {
        Self { address: Some(address.to_canonical()), is_proxy: true }
    }

    /// The address, if one is known.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address
    }

    /// Whose share it takes; none if that can't be told, or would be that of all clients of a proxy.
    #[must_use]
    pub fn share(&self) -> Option<ClientShare> {
        if self.is_proxy { None } else { self.origin() }
    }

    /// As [`share`](Self::share), but with proxies counted as any client: for what an honest one never does.
    #[must_use]
    pub fn origin(&self) -> Option<ClientShare> {
        self.address.map(ClientShare::of)
    }
}

impl ClientShare {
    /// The share of an address: its own for IPv4, that of its network for IPv6.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// As log lines have it.
impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> ClientAddress {
        ClientAddress::of_client(text.parse().unwrap())
    }

    #[test]
    fn a_share_is_an_ipv4_address_or_a_64_of_ipv6() {
        assert_eq!(client("2001:db8::1").share(), client("2001:db8::ffff:2").share());
        assert_ne!(client("2001:db8::1").share(), client("2001:db8:0:1::1").share());
        assert_ne!(client("203.0.113.1").share(), client("203.0.113.2").share());
        assert_eq!(client("::ffff:203.0.113.1").share(), client("203.0.113.1").share());
    }

    #[test]
    fn a_proxy_that_names_nobody_has_no_share_of_what_its_clients_share() {
        let proxy = ClientAddress::of_proxy("10.0.0.1".parse().unwrap());
        assert_eq!((proxy.share(), proxy.origin()), (None, client("10.0.0.1").origin()));
        assert_eq!((ClientAddress::UNKNOWN.share(), ClientAddress::UNKNOWN.origin()), (None, None));
    }

    #[test]
    fn lines_have_the_plain_address() {
        assert_eq!(client("::ffff:203.0.113.1").to_string(), "203.0.113.1");
        assert_eq!(ClientAddress::UNKNOWN.to_string(), "unknown");
    }
}
