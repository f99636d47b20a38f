//! What strangers do to a pod from outside, and what its users feel of it.
//!
//! A [`stage`] is NATS, Redis and two pods, each a process on free ports of the loopback network. An [`audience`] has sockets on the pod that is
//! attacked and gets events all the time; [`probe`]s ask the pod, as an orchestrator and a scraper do, how it is. The attackers of [`perform`] are
//! processes of their own, of lower priority and with one thread each, at addresses of their own: what is measured is the gateway, not who of them
//! gets the machine. A [`run`] is all of it for one row of the [`table`]; the [`catalogue`] says which rows there are.

pub mod audience;
pub mod catalogue;
pub mod false_pod;
pub mod perform;
pub mod probe;
pub mod run;
pub mod samples;
pub mod stage;
pub mod store;
pub mod table;
