//! Configuration: one struct a section, loaded, validated and reloaded as a whole.

mod sections;

pub use sections::*;
