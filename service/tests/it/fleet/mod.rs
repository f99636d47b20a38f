//! Fleets of pods in this process, on memory backends and paused time: every guarantee, every row of the fault table, and each
//! decision that closes a race.

mod delivery;
mod faults;
mod floods;
mod forwarding;
mod limits;
mod locks;
mod lost_data;
mod membership;
mod memory;
mod mending;
mod moving;
mod races;
mod rebalance;
mod redelivery;
mod restarts;
mod resume;
mod sessions;
mod settings;
mod shutdown;
mod slow;
mod sockets;
mod wellness;
