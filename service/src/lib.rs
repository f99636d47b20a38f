//! A WebSocket gateway between NATS JetStream and browsers: a fleet of identical pods, each session on one of them, every event on exactly the
//! sockets that should see it.
//!
//! # The map
//!
//! - [`domain`]: what it is about, without how. Pure: ids, sessions, routes, events, frames, close codes, claims, breaker.
//! - [`application`]: the use cases, one file each. [`application::ports`] says what they need from outside; [`application::pod`] puts them together.
//! - [`adapters`]: one folder an outside system: HTTP, gRPC, NATS, Redis, and all of them in memory.
//! - [`gateway`]: the composition root, the only place that knows ports and adapters.
//! - [`websocket`]: the protocol of sockets. [`cores`]: the threads that they are pinned to.
//! - [`config`], [`metrics`], [`telemetry`], [`lifecycle`], [`listen`], [`clock`], [`fine_timer`], [`breath`], [`backoff`]: what every room uses.
//! - [`dev`]: the embedded fleet. [`cli`]: the commands.
//!
//! # The paths, each one-way
//!
//! - **Connect**: `adapters::http::ws` → [`application::connect`] (lock, evict, routes) → [`application::connection`].
//! - **Event**: `adapters::nats` → [`application::dispatch`] → [`application::deliver`] here, `lane`s of [`application::forward`] elsewhere →
//!   [`application::outcome`] → settled.
//! - **Forward**: `adapters::grpc` → [`application::deliver`] → reply.
//! - **Kill**: `adapters::redis` → [`application::evict`] → [`application::hub`] → the connection closes.
//! - **Renew**: [`application::renew`] for locks, [`application::route_writer`] for routes, [`application::membership`] for the pod.
//! - **Shutdown**: [`application::pod::Pod::drain`] → [`application::drain`] → servers last.
//!
//! `ARCHITECTURE.md` follows each of them, and says how the races are closed.

pub mod adapters;
pub mod application;
pub mod cli;
pub mod config;
pub mod dev;
pub mod domain;
pub mod drain;
pub mod gateway;
pub mod metrics;
pub mod pod;
pub mod ports;
pub mod readiness;
pub mod runtime;
pub mod telemetry;
pub mod websocket;
