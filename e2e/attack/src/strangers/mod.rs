//! The attackers: what one process of strangers does, with one thread, until its time is over.

mod crowd;
mod grpc;
mod http;
pub(crate) mod http2;
pub mod order;
pub mod perform;
mod sockets;
mod tally;
