//! What stands between a pod and its backends: by seed, a call takes longer, fails before it does anything, is carried out and
//! not answered, or is carried out twice. All within what `ports.rs` of the service promises its callers.

mod fate;
mod kills;
mod locks;
mod peers;
mod replay;
mod routes;
mod source;

use std::{sync::Arc, time::Duration};

use daisi_ws_service::{
    adapters::memory::{network::NetworkHandle, store::StoreHandle, stream::StreamHandle},
    pod::Backends,
    ports::StoreError,
    runtime::fine_timer::FineTimer,
};

pub use self::fate::{Fate, Port, PortKind};
use crate::{plan::Rates, record::Record};

/// An answer that does not come is waited for so long: the default of `redis.command_timeout_ms`.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// What a pod's backends are made of.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) store: StoreHandle,
    pub(crate) stream: StreamHandle,
    pub(crate) network: NetworkHandle,
    /// How long the stream waits for an event to be settled.
    pub(crate) ack_wait: Duration,
}

/// Who a pod is to its ports.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// As in traces.
    pub(crate) pod: String,
    /// Its place in the history.
    pub(crate) life: usize,
    /// Draws of its calls are named by it.
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) faults_end: Duration,
    pub(crate) record: Arc<Record>,
}

/// Puts the ports between a pod and its backends.
pub(crate) fn backends(ground: Ground, rates: &Rates, caller: &Caller) -> Backends {
    let Ground { store, stream, network, ack_wait } = ground;
    let (store, stream) = (Arc::new(store), Arc::new(stream));
    let port = |kind, rate| Arc::new(Port::new(kind, rate, caller));
    Backends {
        locks: Arc::new(locks::Locks::new(Arc::clone(&store) as _, port(PortKind::Locks, rates.locks))),
        routes: Arc::new(routes::RoutesPort::new(Arc::clone(&store) as _, port(PortKind::Routes, rates.routes))),
        kills: Arc::new(kills::Kills::new(store, port(PortKind::Kills, rates.kills))),
        source: Arc::new(source::Source::new(Arc::clone(&stream) as _, port(PortKind::Source, rates.source), ack_wait)),
        replay: Arc::new(replay::ReplayPort::new(stream, port(PortKind::Replay, rates.source))),
        peers: Arc::new(peers::PeersPort::new(Arc::new(network), port(PortKind::Peers, rates.peers))),
        timer: Arc::new(FineTimer::of_the_runtime()),
    }
}

/// As a connection says it that breaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broke;

impl std::fmt::Display for Broke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection broke")
    }
}

impl std::error::Error for Broke {}

pub(crate) fn broke() -> StoreError {
    StoreError::unreachable(Broke)
}

pub(crate) fn no_answer() -> StoreError {
    StoreError::TimedOut(PATIENCE)
}
