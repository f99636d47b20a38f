//! Integration tests, in one binary: contract suites of the ports, fleets in one process, fleets for real.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod contracts;
mod grpc;
mod support;
