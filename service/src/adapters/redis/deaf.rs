//! Why kills are not heard, in words for `/ready`. Anybody may read those: the cause, which may name files, is for the log.

use std::fmt;

use super::keys;
use crate::ports::StoreError;

/// Why kills are not heard.
#[derive(Debug, Clone)]
pub(super) enum Deaf {
    /// Not subscribed yet.
    NotYet,
    /// The subscription failed, or ended.
    Since(StoreError),
}

impl fmt::Display for Deaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet => f.write_str("session kills are not heard yet"),
            Self::Since(error) => write!(f, "session kills are not heard (psubscribe {}): {error}", keys::KILL_PATTERN),
        }
    }
}
