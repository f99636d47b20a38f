//! What people see of runs.

mod picture;
mod summary;

pub use self::{picture::picture, summary::Summary};
