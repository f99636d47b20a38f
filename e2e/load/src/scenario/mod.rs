//! What is measured, one file each; `shared` runs those that one set of sockets is good for.

mod burst;
mod connect;
mod fan_out;
mod idle;
mod measured;
pub(crate) mod run;
mod shared;
mod storm;
