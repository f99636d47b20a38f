//! What one set of sockets on one desk is good for: connect, idle, fan-out, burst, storm.

mod burst;
mod connect;
pub(super) mod fan_out;
mod idle;
mod storm;
pub(super) mod trials;
