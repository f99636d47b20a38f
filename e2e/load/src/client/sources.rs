//! Where sockets come from.

use std::net::Ipv4Addr;

/// Sockets from one address. It has 28,000 ports, the kernel looks for a free one by trial, and those of closed sockets stay
/// taken for a minute: few, so that the search never costs more than the connect.
const SOCKETS_PER_SOURCE: u32 = 1000;
/// The addresses are 127.64.0.0 and up, apart from those that servers listen on.
const FIRST: u32 = u32::from_be_bytes([127, 64, 0, 0]);
const COUNT: u32 = 1 << 22;

/// Addresses of the loopback network, another one for every thousand sockets. They begin anywhere, so that a run does not meet
/// the ports that one before has used, or that one beside it uses.
#[derive(Debug)]
pub(super) struct Sources {
    start: u32,
    given: u32,
}

impl Sources {
    pub(super) fn new() -> Self {
        Self { start: rand::random(), given: 0 }
    }

    /// For the next socket.
    pub(super) fn next(&mut self) -> Ipv4Addr {
        let place = self.start.wrapping_add(self.given / SOCKETS_PER_SOURCE) % COUNT;
        self.given = self.given.wrapping_add(1);
        Ipv4Addr::from(FIRST + place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn no_address_has_many_sockets_and_none_is_a_servers() {
        for start in [0, 7, u32::MAX] {
            let mut sources = Sources { start, given: 0 };
            let mut sockets: HashMap<Ipv4Addr, u32> = HashMap::new();
            (0..20_000).for_each(|_| *sockets.entry(sources.next()).or_default() += 1);
            assert_eq!(sockets.len(), 20);
            assert!(sockets.values().all(|sockets| *sockets == SOCKETS_PER_SOURCE));
            assert!(sockets.keys().all(|source| source.is_loopback() && *source >= Ipv4Addr::new(127, 64, 0, 0)));
        }
    }
}
