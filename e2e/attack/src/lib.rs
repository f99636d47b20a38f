//! What strangers do to a pod from outside, and what its users feel of it.
//!
//! - `stage`: NATS, Redis and two pods, each a process on free ports of the loopback network.
//! - [`impact`]: an audience has sockets on the pod that is attacked and gets events all the time; probes ask the pod how it is,
//!   as an orchestrator and a scraper do.
//! - [`strangers`]: the attackers. They are processes of their own, of lower priority and with one thread each, at addresses of
//!   their own: what is measured is the gateway, not who of them gets the machine. `intruder`: somebody who can write to Redis.
//! - [`run`]: all of it for one row of the [`table`]; the [`catalogue`] says which rows there are.

pub mod catalogue;
pub mod impact;
mod intruder;
pub mod run;
mod stage;
pub mod strangers;
pub mod table;
