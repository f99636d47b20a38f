//! What the kernel says of a process.

pub(crate) mod conntrack;
pub(crate) mod cpu;
pub(crate) mod limits;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod owner;
pub(crate) mod stop;
