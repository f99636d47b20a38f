//! The suite of attacks. It needs the gateway's program, nats-server and redis-server: `.ci/e2e some attacks::` sees to all of
//! them.
#![expect(clippy::unwrap_used, reason = "a test that fails has to say where")]

mod attacks;
