//! Those who use a fleet: sessions that write down what they see, publishers, and a load of both.

pub mod client;
pub mod evidence;
pub mod ledger;
pub mod load;
pub mod publisher;
mod session;
