//! The embedded fleet: several pods in one process, each with its own ports, on memory backends or on real ones.
//!
//! The pods are the real thing, listeners, gRPC and all; only the session store and the stream may be in memory.

mod fleet;
mod publish;
mod welcome;

pub use fleet::{Fleet, FleetError, Plan};
pub use publish::publish_path;
