//! What is measured: a file or a folder each.

mod growth;
mod own;
pub(crate) mod run;
mod shared;
mod slow;
mod take_over;
