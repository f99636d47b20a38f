//! A WebSocket gateway between NATS JetStream and browsers: a fleet of identical pods, each session on one of them, every event
//! on exactly the sockets that should see it.
//!
//! # The map
//!
//! - [`daisi_ws_domain`]: what it is about, without how. Pure: ids, sessions, routes, events, frames, close codes, claims,
//!   breaker.
//! - [`application`]: the use cases, a folder each. [`ports`] says what they need from outside; [`pod`] puts them together,
//!   [`shutdown`] states the order in which it ends, [`drain`] the steps; [`readiness`] says whether it should get new
//!   connections.
//! - [`adapters`]: one folder an outside system: HTTP, gRPC, NATS, Redis, and all of them in memory.
//! - [`gateway`]: the composition root, the only place that knows ports and adapters.
//! - [`daisi_ws_websocket`]: the protocol of sockets. [`runtime`]: threads and their tasks, timers, clocks, listeners.
//! - [`config`], [`metrics`], [`telemetry`]: what every module uses.
//! - [`dev`]: the embedded fleet. [`cli`]: the commands.
//!
//! `ARCHITECTURE.md` defines the guarantees that comments name (G1 to G9), follows each path through these modules function by
//! function, and says how the races are closed. `docs/adr` has a page for each decision.

pub mod adapters;
pub mod application;
pub mod cli;
pub mod config;
pub mod dev;
pub mod drain;
pub mod gateway;
pub mod metrics;
pub mod pod;
pub mod ports;
pub mod readiness;
pub mod runtime;
pub mod shutdown;
pub mod telemetry;
