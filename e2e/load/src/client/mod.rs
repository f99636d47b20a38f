//! The sockets of the test: cheap enough that on the same cores the server is what is measured.
//!
//! `process` is a process of its own, so that its files and its CPU time are apart from everything else; `fleet` is the
//! conductor's end.

mod cursor;
pub(crate) mod fleet;
pub(crate) mod handshake;
mod ledger;
pub(crate) mod process;
pub(crate) mod protocol;
mod set;
mod shared;
mod socket;
mod sources;
mod worker;
