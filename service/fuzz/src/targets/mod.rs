//! All targets. Those of the domain and the sockets need nothing of the gateway, and compile without it.

mod claims;
mod client_message;
mod conversation;
mod deflate;
mod extensions;
mod frames;
#[cfg(feature = "gateway")]
mod gateway;
mod ids;
mod inflate;
mod network;
mod origin;
mod payload;
mod socket;
mod subject;

use crate::{Bound, Target};

#[cfg(feature = "gateway")]
pub use gateway::*;

/// What small texts take: copies of them, and errors that quote them.
const SMALL: Bound = Bound { fixed: 16 << 10, each: 32 };

/// Frames of clients, as bytes that are cut anywhere.
pub static FRAMES: Target = Target::new("frames", Bound { fixed: 64 << 10, each: 64 }, frames::check);
/// A whole socket, with what a client may send in a time.
pub static SOCKET: Target = Target::new("socket", Bound { fixed: 160 << 10, each: 64 }, socket::check);
/// Compressed messages.
pub static INFLATE: Target = Target::new("inflate", Bound { fixed: 640 << 10, each: 16 }, inflate::check);
/// Compression, for whom it is sent to.
pub static DEFLATE: Target = Target::new("deflate", Bound { fixed: 2 << 20, each: 64 }, deflate::check);
/// What clients offer of compression.
pub static EXTENSIONS: Target = Target::new("extensions", SMALL, extensions::check);
/// Messages of clients.
pub static CLIENT_MESSAGE: Target = Target::new("client_message", Bound { fixed: 16 << 10, each: 256 }, client_message::check);
/// What tokens hold.
pub static CLAIMS: Target = Target::new("claims", Bound { fixed: 16 << 10, each: 256 }, claims::check);
/// Subjects of events.
pub static SUBJECT: Target = Target::new("subject", SMALL, subject::check);
/// Payloads of events, and the frames that are made of them.
pub static PAYLOAD: Target = Target::new("payload", Bound { fixed: 16 << 10, each: 256 }, payload::check);
/// Ids, and the owners of locks.
pub static IDS: Target = Target::new("ids", SMALL, ids::check);
/// Origins of pages, and patterns of them.
pub static ORIGIN: Target = Target::new("origin", SMALL, origin::check);
/// Networks of proxies.
pub static NETWORK: Target = Target::new("network", SMALL, network::check);

/// All of them.
pub static TARGETS: &[&Target] = &[
    &FRAMES,
    &SOCKET,
    &INFLATE,
    &DEFLATE,
    &EXTENSIONS,
    &CLIENT_MESSAGE,
    &CLAIMS,
    &SUBJECT,
    &PAYLOAD,
    &IDS,
    &ORIGIN,
    &NETWORK,
    #[cfg(feature = "gateway")]
    &GRPC_MESSAGE,
    #[cfg(feature = "gateway")]
    &GRPC_PROOF,
    #[cfg(feature = "gateway")]
    &REDIS_VALUE,
    #[cfg(feature = "gateway")]
    &NATS_MESSAGE,
    #[cfg(feature = "gateway")]
    &NATS_PROGRESS,
    #[cfg(feature = "gateway")]
    &NATS_REPLAY,
    #[cfg(feature = "gateway")]
    &HTTP_HEAD,
    #[cfg(feature = "gateway")]
    &PROXY_PROTOCOL,
    #[cfg(feature = "gateway")]
    &TRACEPARENT,
    #[cfg(feature = "gateway")]
    &TOKEN,
    #[cfg(feature = "gateway")]
    &CONFIGURATION,
];
