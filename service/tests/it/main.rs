//! Integration tests, in one binary: contract suites of the ports, fleets in one process, fleets for real.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests may fail as loudly as tests")]

mod auth;
mod contracts;
mod http;
mod properties;
mod support;
