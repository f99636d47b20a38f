//! The embedded fleet: several pods in one process, each with its own ports, on memory backends or on real ones.
//!
//! The pods are the real thing, listeners, gRPC and all; only the session store and the stream may be in memory. Each is behind
//! doors (`gate`) that keep its ports while it is stopped, frozen and started again from the console page (`console`, `control`).

mod console;
mod control;
mod error;
mod fleet;
mod gate;
mod plan;
mod publish;
mod running;
mod slot;
mod status;
mod welcome;

pub use fleet::Fleet;
pub use plan::Plan;
pub(crate) use publish::publish_path;
