//! Another pod, as the fleet knows it.

use std::time::Duration;

use crate::ids::PodId;

/// Where a pod is, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRecord {
    /// Its id, one in the fleet.
    pub id: PodId,
    /// `host:port` that peers dial.
    pub address: String,
    /// When it started, since the Unix epoch: tells a restarted pod from the one before.
    pub started_at: Duration,
}
