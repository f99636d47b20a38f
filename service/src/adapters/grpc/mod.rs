//! Pods talking to each other over gRPC: [`GrpcPeers`] calls, [`GrpcServer`] answers.
//!
//! Payloads travel as the publisher's bytes. Every call, and every answer, carries a proof that its pod belongs to the fleet
//! (`proof`), and nothing is sent on a connection before the other end has proved itself; only health checks, and reflection
//! where it is on, are answered without. Limits that both sides must agree on are here.

mod client;
mod clocks;
mod convert;
mod eviction;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod legacy;
mod proof;
mod self_check;
mod server;
mod tls;
mod whole;

use std::time::Duration;

use daisi_ws_domain::ids::PodId;

pub use client::proving::ProvingChannel;
pub use client::{GrpcPeers, PeersSettings};
pub use proof::{ANSWER_HEADER, PREVIOUS_PROOF_HEADER, PROOF_HEADER, previous_proof, prove_call};
pub use self_check::SelfCheck;
pub(crate) use server::GrpcServerError;
pub use server::{GrpcServer, GrpcServerSettings};
pub use tls::{Tls, TlsError, TlsFiles};

/// The longest message that is sent or accepted. NATS lets a publisher send 1 MiB by default and advises against more than 8;
/// this leaves room for the largest of those in a batch of its own.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Payload bytes that fill a batch. More events go in the next call, so that one batch never holds a connection, or a peer's
/// memory, for long. An event that is larger travels alone.
pub(crate) const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Events that fill a batch; a server answers more with `INVALID_ARGUMENT`. Twice a large pull: a backlog catches up in few round
/// trips.
pub const MAX_BATCH_EVENTS: usize = 1024;

/// Gaps in one call; a server answers more with `INVALID_ARGUMENT`. Twice what a pod keeps apart for a peer.
pub const MAX_BATCH_GAPS: usize = 2 * 1024;

/// The longest wait for a connection. Pods are a network hop apart: what takes longer is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a connection is asked for a sign of life, idle or not: with [`KEEP_ALIVE_TIMEOUT`], a black hole is noticed within 3
/// s, before a forwarding call or half an ack wait has run out.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the sign of life may take; a busy pod answers from its connection task at once.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest wait for the answer to a health check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of one call that may be under way unread: a full batch need not wait for a round trip per 64 KiB (the protocol's
/// default).
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes of one connection that may be under way unread: what bounds the memory that a peer can make us hold.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Metadata key of the request id, as over HTTP.
const REQUEST_ID_HEADER: &str = "x-request-id";

/// Metadata key of the W3C trace context.
const TRACEPARENT_HEADER: &str = "traceparent";

/// The name under which the health service says whether one pod has room for sockets.
fn room_name(pod: &PodId) -> String {
    format!("room/{pod}")
}

/// The name under which the health service says whether one pod takes events and can bring them where they belong.
fn wellness_name(pod: &PodId) -> String {
    format!("well/{pod}")
}

/// The name under which the health service answers for one pod: an address may have passed to another pod, which must not answer
/// for the dead one.
fn health_name(pod: &PodId) -> String {
    format!("pod/{pod}")
}
