//! What a pod stands on, as whoever starts it chooses.

use crate::adapters::memory::{store::Store, stream::Stream};

/// Where sessions are kept: in Redis, or in a store of this process.
#[derive(Debug, Clone)]
pub enum StoreChoice {
    /// In Redis, as the section `redis` says.
    Redis,
    /// In this process, shared with the pods that have the same store.
    Memory(Store),
}

/// Where events come from: NATS, or a stream of this process.
#[derive(Debug, Clone)]
pub enum StreamChoice {
    /// NATS JetStream, as the section `nats` says.
    Nats,
    /// This process; shared with the pods that have the same stream.
    Memory(Stream),
}

/// What a pod stands on.
#[derive(Debug, Clone)]
pub struct BackendChoice {
    /// Its session store.
    pub store: StoreChoice,
    /// Its event stream.
    pub stream: StreamChoice,
}
