//! What announcing hands to what is done beside it.

use std::sync::atomic::AtomicBool;

use tokio::sync::{Notify, watch};

/// What is to be done beside announcing.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Register everything again; true if the sessions have to be told of a gap.
    pub(super) register: watch::Sender<Registering>,
    /// An announcement has shown who is there, or has failed after others.
    pub(super) shown: Notify,
    /// It has failed: nobody sees in the store that this pod is there.
    pub(super) is_unseen: AtomicBool,
    /// The first announcement was not of a pod that made the epoch, or another followed.
    pub(super) settled: watch::Sender<bool>,
}

/// How often everything had to be registered again, and how often the sessions have to be told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Registering {
    pub(super) rounds: u64,
    pub(super) gaps: u64,
    /// Of something that lies before the place that they were told, and can't be read again.
    pub(super) owed: u64,
}
