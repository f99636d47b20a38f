//! Integration tests, in one binary: contract suites of the ports, fleets in one process, fleets for real.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails has to say where")]

mod architecture;
mod auth;
mod console;
mod contracts;
mod dashboards;
mod dev;
mod docs;
mod fleet;
mod framing;
mod grpc;
mod http;
mod ipv6;
mod labels;
mod listen;
mod logs;
mod manifests;
mod probes;
mod properties;
mod real;
mod real_redis;
mod redis_budget;
mod rings;
mod secrets;
mod support;
