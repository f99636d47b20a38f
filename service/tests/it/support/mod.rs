//! What tests need: servers of their own, on free ports and in temporary folders.

pub(crate) mod peers;
