//! Events on their way to the threads of the floor.

/// The events of one subject, encoded.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) subject: Box<str>,
    pub(crate) frames: Vec<u8>,
}
