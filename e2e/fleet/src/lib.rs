//! The fleet in containers, the faults that befall it, and the ledgers that say what came of them.
//!
//! A suite speaks in a few words. A [`cluster`] is a network with NATS, Redis and [`pod`]s in it, each pod reaching Redis and its peers
//! through a [`proxy`] of the harness, so that any single link can be cut, stalled, slowed or delayed. A [`client`] is a browser: it keeps a
//! [`ledger`] of all that it saw and connects again when its socket ends. A [`publisher`] stores numbered events and keeps a record of each.
//! [`load`] is many of both. A [`fault`] is what is done to the cluster meanwhile, and the [`oracle`] compares ledgers with records: lost,
//! doubled, misdelivered, out of order, announced. What it measured goes to a [`report`].
//!
//! Clients run on this host and reach pods by their addresses in the cluster's own network.

pub mod containers;
pub mod faults;
pub mod oracle;
pub mod proxy;
pub mod report;
pub mod traffic;
