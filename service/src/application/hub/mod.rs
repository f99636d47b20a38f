//! The sockets of this pod: who is here, what waits for each, and what the memory of the pod allows.

pub mod deliver;
mod fan_out;
mod floor;
mod latecomers;
mod left_lately;
pub mod mailbox;
mod members;
pub mod memory;
mod parting;
pub mod prepared_message;
mod rare;
pub mod registry;
pub(crate) mod relief;
pub mod session;
mod who;
