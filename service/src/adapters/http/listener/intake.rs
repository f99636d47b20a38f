//! Whom a listener is for, and within which bounds.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::places::Bounds;
use crate::{
    adapters::http::forwarded::Peer,
    config::{Config, ProxyProtocol},
    metrics::labels::Listener,
};
use daisi_ws_domain::client_address::ClientShare;

/// Pending connections of a listener for probes: a kubelet, a Prometheus and a load balancer have one or two connections each.
const PROBES: Bounds = Bounds { all: 128, of_one: 32, grace: Duration::from_secs(1), crowd: 256 };

/// How long a browser, or who opens thousands of connections at once, has for its request, however many have come.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// Pending connections of the listener for browsers in any case: a storm of reconnects to a full pod.
const CROWD: usize = 12 * 1024;

/// Whom a listener takes in.
#[derive(Debug, Clone)]
pub enum Intake {
    /// Everybody, within `limits.*`; proxies as `server.*` says.
    Browsers(watch::Receiver<Arc<Config>>),
    /// Who asks how the pod is: few, and nobody through a proxy.
    Probes,
    /// So many pending connections.
    #[cfg(test)]
    AtMost(usize),
}

impl Intake {
    pub(super) fn listener(&self) -> Listener {
        match self {
            Self::Browsers(_) => Listener::Http,
            _ => Listener::Probe,
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        match self {
            Self::Browsers(config) => {
                let limits = &config.borrow().limits;
                Bounds {
                    all: limits.pending_connections,
                    of_one: limits.pending_connections_per_address,
                    grace: GRACE,
                    crowd: CROWD,
                }
            }
            Self::Probes => PROBES,
            #[cfg(test)]
            Self::AtMost(all) => Bounds { all: *all, of_one: 0, grace: Duration::ZERO, crowd: *all },
        }
    }

    /// Whose share a connection from there takes; a trusted proxy's takes nobody's.
    pub(super) fn share(&self, peer: Peer) -> Option<ClientShare> {
        (!self.is_trusted(peer)).then(|| ClientShare::of(peer.0))
    }

    /// Does a connection from there begin with the PROXY protocol?
    pub(crate) fn is_proxied(&self, peer: Peer) -> bool {
        let required = matches!(self, Self::Browsers(config) if config.borrow().server.proxy_protocol == ProxyProtocol::Required);
        required && self.is_trusted(peer)
    }

    /// Whose share it takes once the proxy has named its client.
    pub(crate) fn share_of_client(&self, client: Peer) -> Option<ClientShare> {
        self.share(client)
    }

    pub(super) fn is_trusted(&self, Peer(peer): Peer) -> bool {
        let Self::Browsers(config) = self else { return false };
        config.borrow().server.trusted_proxies.iter().any(|network| network.contains(peer))
    }
}
