//! How attacks are run.

use std::{path::PathBuf, time::Duration};

/// How attacks are run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateway's program.
    pub binary: PathBuf,
    /// The program of the strangers.
    pub strangers: PathBuf,
    /// Pods of the fleet.
    pub pods: usize,
    /// How long before the attack is measured.
    pub before: Duration,
    /// How long the attack lasts.
    pub during: Duration,
    /// Variables of the pods.
    pub set: Vec<(String, String)>,
}
