//! The whole fleet under a seed.
//!
//! A seed gives a [`plan`]: pods, people, publishers, what they do and what breaks. A [`run`](run::run) of it has the code that
//! ships do all that, on memory backends and paused time, on one thread: the same seed gives the same run, to the last line of
//! its [`trace`]. Between each pod and its backends stand the [`ports`], where calls take longer, fail, or are carried out and
//! not answered. After each tick and at the end, the [`invariants`] are looked at. A plan that breaks one is [cut](mod@shrink) as
//! small as it gets.

pub mod cli;
pub mod draw;
pub mod history;
pub mod invariants;
pub mod plan;
pub mod ports;
pub mod record;
pub mod report;
pub mod run;
pub mod shrink;
mod tasks;
pub mod trace;
mod world;
