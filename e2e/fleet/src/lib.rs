//! The fleet in containers, the faults that befall it, and the ledgers that say what came of them.
//!
//! - [`containers`]: a cluster is a network with NATS, Redis and pods in it, each pod reaching Redis and its peers through a
//!   [`proxy`] of the harness, so that any single link can be cut, stalled, slowed or delayed.
//! - [`traffic`]: a client is a browser. It keeps a ledger of all that it saw, and connects again when its socket ends. A
//!   publisher stores numbered events and keeps a record of each. A load is many of both. [`identity`] says what concerns whom.
//! - [`faults`]: what is done to the cluster meanwhile.
//! - [`oracle`]: compares ledgers with records: lost, doubled, misdelivered, out of order, announced. What it measured becomes a
//!   row of the table of faults. [`artifacts`] is where files go.
//!
//! Clients run on this host and reach pods by their addresses in the cluster's own network.

pub mod artifacts;
pub mod containers;
pub mod faults;
pub mod identity;
pub mod oracle;
pub mod proxy;
pub mod traffic;
