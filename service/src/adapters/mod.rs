//! One folder an outside system. An adapter never sees another adapter.

pub mod grpc;
pub mod http;
pub mod memory;
pub mod nats;
pub mod redis;
