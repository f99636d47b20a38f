//! What is measured: a file or a folder each.

mod growth;
mod own;
mod quiet;
mod resume;
pub(crate) mod run;
mod shared;
mod slow;
mod take_over;
