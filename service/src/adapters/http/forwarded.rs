//! Who sent a request that came through proxies: what trusted ones say of it, and nothing that anybody else could have written.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use daisi_ws_domain::{client_address::ClientAddress, network::Network};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Proxies in a row. Anyone who writes more than that into a header wants work done.
const MAX_HOPS: usize = 16;

/// The address that a connection came from; each request on it carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(super) IpAddr);

/// The client of a request from `peer`: the peer itself, or, where that is a trusted proxy, the right-most address of
/// `X-Forwarded-For` that is none.
///
/// Each proxy adds on the right whom it heard from, so what stands left of the first untrusted address is that one's own
/// invention. `Forwarded` is read where there is no `X-Forwarded-For` alone: a proxy that writes the one passes on what a client
/// wrote into the other.
pub(super) fn client(peer: Option<Peer>, headers: &HeaderMap, trusted: &[Network]) -> ClientAddress {
    let Some(Peer(peer)) = peer else { return ClientAddress::UNKNOWN };
    let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return ClientAddress::of_client(peer);
    }
    let is_plain = headers.contains_key(X_FORWARDED_FOR);
    let name = if is_plain { &X_FORWARDED_FOR } else { &header::FORWARDED };
    let mut proxy = peer;
    for hop in from_the_right(headers, name) {
        match address(if is_plain { hop } else { forwarded_for(hop) }) {
            Some(address) if is_trusted(address) => proxy = address,
            Some(address) => return ClientAddress::of_client(address),
            // Hidden, or nonsense: the last hop that is known counts.
            None => break,
        }
    }
    ClientAddress::of_proxy(proxy)
}

/// The last items of a list header, over all its lines.
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().rev();
    lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')).map(str::trim).take(MAX_HOPS)
}

/// The `for` of one item of `Forwarded` (RFC 7239, section 4); empty if it has none.
fn forwarded_for(item: &str) -> &str {
    let pairs = item.split(';').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value.trim());
    values.next().unwrap_or_default().trim_matches('"')
}

/// An address, perhaps with a port, an IPv6 one perhaps in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The client that is seen behind 10.0.0.1, where 10.0.0.0/8 is trusted.
    fn seen(lines: &[(&'static str, &'static str)]) -> ClientAddress {
        seen_from("10.0.0.1", lines)
    }

    fn seen_from(peer: &str, lines: &[(&'static str, &'static str)]) -> ClientAddress {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        client(Some(Peer(peer.parse().unwrap())), &headers, &["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    fn of_client(text: &str) -> ClientAddress {
        ClientAddress::of_client(text.parse().unwrap())
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxys() {
        for (value, client) in [
            ("203.0.113.7", "203.0.113.7"),
            ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
            ("198.51.100.1, 203.0.113.7, 10.9.9.9 ,10.1.1.1", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(seen(&[("x-forwarded-for", value)]), of_client(client), "{value}");
        }
        let lines = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7, fd00::5")];
        assert_eq!(seen(&lines), of_client("203.0.113.7"));
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        assert_eq!(seen_from("203.0.113.9", &[("x-forwarded-for", "198.51.100.1")]), of_client("203.0.113.9"));
        assert_eq!(client(None, &HeaderMap::new(), &[]), ClientAddress::UNKNOWN);
    }

    #[test]
    fn a_proxy_that_names_nobody_is_taken_for_a_proxy() {
        let of_proxy = |text: &str| ClientAddress::of_proxy(text.parse().unwrap());
        assert_eq!(seen(&[]), of_proxy("10.0.0.1"));
        assert_eq!(seen(&[("x-forwarded-for", "10.2.2.2")]), of_proxy("10.2.2.2"));
        assert_eq!(seen(&[("x-forwarded-for", "198.51.100.1, unknown")]), of_proxy("10.0.0.1"));
        assert_eq!(seen(&[("x-forwarded-for", "198.51.100.1, unknown, 10.2.2.2")]), of_proxy("10.2.2.2"));
    }

    #[test]
    fn forwarded_is_read_where_there_is_no_x_forwarded_for() {
        for (value, client) in [
            ("for=203.0.113.7;proto=https", "203.0.113.7"),
            ("for=198.51.100.1, For=\"[2001:db8::1]:4711\"; by=10.0.0.1", "2001:db8::1"),
            ("proto=https;for=203.0.113.7, for=10.2.2.2", "203.0.113.7"),
        ] {
            assert_eq!(seen(&[("forwarded", value)]), of_client(client), "{value}");
        }
        let lines = [("forwarded", "for=198.51.100.1"), ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(seen(&lines), of_client("203.0.113.7"), "a client wrote the one that its proxy does not write");
    }

    #[test]
    fn a_long_list_is_read_from_the_right_within_bounds() {
        let value: &'static str = Box::leak(format!("203.0.113.7{}", ", 10.0.0.1".repeat(MAX_HOPS)).into_boxed_str());
        assert_eq!(seen(&[("x-forwarded-for", value)]), ClientAddress::of_proxy("10.0.0.1".parse().unwrap()));
    }
}
