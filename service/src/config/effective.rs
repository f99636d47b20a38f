//! What an empty key stands for: this pod's name, and the address that peers dial.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use daisi_ws_domain::ids::{IdError, PodId};

use super::{Server, validate::is_host_and_port};

/// This pod's name: `server.pod_id`, or, where that is empty, the host's with the port for peers: two pods on one host can't have
/// the same.
///
/// `grpc_port` is the port that is really bound, for a configured 0.
///
/// # Errors
/// When the name breaks the rule of pod ids.
pub fn pod_id(server: &Server, host_name: &str, grpc_port: u16) -> Result<PodId, IdError> {
    if !server.pod_id.is_empty() {
        return PodId::parse(&server.pod_id);
    }
    PodId::parse(host_name)?;
    PodId::parse(&format!("{host_name}-{grpc_port}"))
}

/// The `host:port` that peers dial: `server.grpc_advertise_address`, with `grpc_port` where it has no port; else the pod's id if
/// that is an address; else the host's. An IPv6 address gets its brackets.
///
/// `grpc_port` is the port that is really bound, for a configured 0. `host` is asked only if needed: see [`host_address`].
#[must_use]
pub fn advertise_address(server: &Server, pod: &PodId, grpc_port: u16, host: impl FnOnce() -> String) -> String {
    if !server.grpc_advertise_address.is_empty() {
        return with_port(&server.grpc_advertise_address, grpc_port);
    }
    let id = pod.as_str();
    if let Ok(address) = id.parse::<IpAddr>() {
        return SocketAddr::new(address, grpc_port).to_string();
    }
    if is_host_and_port(id) {
        return id.to_owned();
    }
    // Bound to one address, the pod can't be reached at any other.
    let bound = grpc_bind_ip(server);
    let host = if bound.is_unspecified() { host() } else { bound.to_string() };
    with_port(&host, grpc_port)
}

/// Where the listener for peers is bound.
#[must_use]
pub(crate) fn grpc_bind_ip(server: &Server) -> IpAddr {
    server.grpc_bind_address.parse().unwrap_or(server.bind_address)
}

/// Where the listener for probes is bound.
#[must_use]
pub(crate) fn probe_bind_ip(server: &Server) -> IpAddr {
    server.probe_bind_address.parse().unwrap_or(server.bind_address)
}

/// The address with a port, unless it has one.
fn with_port(address: &str, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) if is_host_and_port(address) => address.to_owned(),
        Err(_) => format!("{address}:{port}"),
    }
}

/// The host's name.
#[must_use]
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// An address at which other hosts reach this one: what its name stands for (in a container, the pod's address), else the one
/// that it would send from, else its name. May block on a name server, so it is for the start only.
#[must_use]
pub(crate) fn host_address(host_name: &str) -> String {
    let named = (host_name, 0).to_socket_addrs().ok();
    let named = named.and_then(|mut found| found.find(|address| is_reachable(address.ip()))).map(|address| address.ip());
    named
        .or_else(|| SENDING.into_iter().find_map(|(from, to)| sending_address(from, to)))
        .map_or_else(|| host_name.to_owned(), |address| address.to_string())
}

/// From where, and whereto, in each family; the destinations are set aside for documentation.
const SENDING: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// Where a packet to elsewhere would come from. Connecting a UDP socket sends nothing.
fn sending_address(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| is_reachable(*address))
}

/// Can another host dial it? A link-local IPv6 address means nothing without the link.
fn is_reachable(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    !address.is_loopback() && !address.is_unspecified() && !link_local
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    fn server(change: impl FnOnce(&mut Server)) -> Server {
        let mut server = testing::config().server;
        change(&mut server);
        server
    }

    #[test]
    fn the_pod_is_named_by_its_key_else_by_the_host_and_its_port() {
        assert_eq!(pod_id(&server(|_| {}), "ws-7", 50051).unwrap().as_str(), "ws-7-50051");
        assert_ne!(pod_id(&server(|_| {}), "ws-7", 50052).unwrap().as_str(), "ws-7-50051", "a neighbour on the host");
        assert_eq!(pod_id(&server(|s| s.pod_id = "pod-1".into()), "ws-7", 50051).unwrap().as_str(), "pod-1");
        assert!(pod_id(&server(|_| {}), "", 50051).is_err());
    }

    #[test]
    fn peers_dial_what_is_advertised_else_the_id_else_the_host() {
        let dialled =
            |server: &Server, id: &str| advertise_address(server, &PodId::parse(id).unwrap(), 50051, || "10.0.0.9".into());
        let plain = server(|_| {});
        assert_eq!(dialled(&server(|s| s.grpc_advertise_address = "gw-1:7000".into()), "10.1.2.3"), "gw-1:7000");
        // As Kubernetes names a pod's address, whatever its family.
        assert_eq!(dialled(&server(|s| s.grpc_advertise_address = "fd00::1".into()), "ws-1"), "[fd00::1]:50051");
        assert_eq!(dialled(&server(|s| s.grpc_advertise_address = "10.1.2.3".into()), "ws-1"), "10.1.2.3:50051");
        assert_eq!(dialled(&server(|s| s.grpc_advertise_address = "[fd00::1]:7000".into()), "ws-1"), "[fd00::1]:7000");
        assert_eq!(dialled(&server(|s| s.grpc_advertise_address = "gw-1".into()), "ws-1"), "gw-1:50051");
        assert_eq!(dialled(&server(|s| s.bind_address = "::1".parse().unwrap()), "ws-1"), "[::1]:50051");
        assert_eq!(dialled(&server(|s| s.bind_address = "::".parse().unwrap()), "ws-1"), "10.0.0.9:50051");
        assert_eq!(dialled(&server(|s| s.grpc_bind_address = "10.7.7.7".into()), "ws-1"), "10.7.7.7:50051");
        assert_eq!(dialled(&plain, "10.1.2.3"), "10.1.2.3:50051");
        assert_eq!(dialled(&plain, "10.1.2.3:6000"), "10.1.2.3:6000");
        assert_eq!(dialled(&plain, "fd00::1"), "[fd00::1]:50051");
        assert_eq!(dialled(&plain, "ws-1"), "10.0.0.9:50051");
        assert_eq!(dialled(&server(|s| s.bind_address = "127.0.0.1".parse().unwrap()), "ws-1"), "127.0.0.1:50051");
        let by_name = advertise_address(&plain, &PodId::parse("ws-1").unwrap(), 50051, || "ws-1".into());
        assert_eq!(by_name, "ws-1:50051");
    }

    #[test]
    fn the_host_has_a_name_and_an_address() {
        assert!(!host_name().is_empty());
        assert!(!host_address(&host_name()).is_empty());
        for (address, reachable) in
            [("10.1.2.3", true), ("fd00::1", true), ("fe80::1", false), ("::1", false), ("::", false), ("127.0.1.1", false)]
        {
            assert_eq!(is_reachable(address.parse().unwrap()), reachable, "{address}");
        }
    }
}
