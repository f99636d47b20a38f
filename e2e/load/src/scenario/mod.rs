//! What is measured, one file each; `shared` runs those that one set of sockets is good for.

mod burst;
mod connect;
mod fan_out;
mod forwarded;
mod growth;
mod idle;
mod measured;
mod own;
pub(crate) mod run;
mod shared;
mod side;
mod slow;
mod spread;
mod storm;
mod take_over;
mod turns;
