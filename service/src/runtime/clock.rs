//! The wall clock, in the one place that may read it.

use std::time::{Duration, SystemTime};

/// Time since the Unix epoch.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
