//! What the gateway is about, without how: ids, sessions, routes, events, frames, close codes, claims.
//!
//! Everything here is pure. No tokio, no I/O, no clock: anyone who needs the time passes it in. A value that exists is valid;
//! text from outside is parsed at the edge and never travels on as a bare `String`.

pub mod breaker;
pub mod claims;
pub mod client_address;
pub mod close;
pub mod event;
pub mod frame;
pub mod gap;
pub mod ids;
pub mod maps;
pub mod missing;
pub mod moving;
pub mod network;
pub mod origin;
pub mod peer;
pub mod publication;
pub mod rate;
pub mod rate_table;
pub mod resume;
pub mod route;
pub mod seen;
pub mod session;
pub mod ttl;
mod words;

/// Some moment: what tests count from, as nothing here reads a clock.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any moment will do, and a runtime's can't be had here")]
fn a_moment() -> std::time::Instant {
    std::time::Instant::now()
}
