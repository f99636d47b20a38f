//! What the head of a request may have.

/// Headers of a request; browsers and proxies send some thirty.
pub(crate) const MAX_HEADERS: usize = 100;

/// Bytes of a request's head: the longest token in a query or header, twice over, and room for cookies.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;
