//! The pod looks at its own port for pods, from outside: a listener that is held up answers nobody, whatever its own task thinks.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use daisi_ws_domain::peer::PodRecord;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    CONNECT_TIMEOUT, PROBE_TIMEOUT,
    client::{hello, link::Link, proving::Prover},
    tls::Tls,
};
use crate::{
    application::fleet::key::FleetKey,
    readiness::{Dependency, Readiness},
};

/// How often the pod looks. Each look is a connection and a call.
const PERIOD: Duration = Duration::from_secs(1);

/// A look at this pod's own port.
#[derive(Debug, Clone)]
pub struct SelfCheck {
    me: PodRecord,
    address: String,
    prover: Prover,
    tls: Option<Tls>,
}

impl SelfCheck {
    /// Looks at the address that was bound; where that is every address of the host, at loopback.
    #[must_use]
    pub fn new(me: PodRecord, bound: SocketAddr, key: FleetKey, tls: Option<Tls>) -> Self {
        let ip = match bound.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            // Every address in both families; a host may have no IPv6 loopback, and always has this.
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        let prover = Prover { key, clocks: Arc::default(), accept_previous: false };
        Self { me, address: SocketAddr::new(ip, bound.port()).to_string(), prover, tls }
    }

    /// Tells what it sees, for as long as it is polled.
    pub async fn watch(&self, readiness: &Readiness) {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            readiness.observe(Dependency::Grpc, self.serves().await);
        }
    }

    /// Does the pod answer a caller who comes now?
    pub async fn serves(&self) -> bool {
        let Ok(link) = Link::open(&self.address, self.tls.clone()) else { return false };
        let connection = link.connection();
        let look = timeout(CONNECT_TIMEOUT + PROBE_TIMEOUT, hello(&self.prover, &connection, &self.me)).await;
        matches!(look, Ok(Ok(())))
    }
}
