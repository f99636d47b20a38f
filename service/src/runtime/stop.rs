//! How one part of a pod is told to stop, and says that it has.

use tokio_util::sync::CancellationToken;

/// Tells one part of the pod to stop, and hears when it has.
#[derive(Debug, Clone)]
pub struct Stop {
    part: &'static str,
    told: CancellationToken,
    stopped: CancellationToken,
}

impl Stop {
    pub(crate) fn new(part: &'static str) -> Self {
        Self { part, told: CancellationToken::new(), stopped: CancellationToken::new() }
    }

    /// Cancelled when the part has to stop.
    #[must_use]
    pub fn told(&self) -> &CancellationToken {
        &self.told
    }

    /// The part has stopped.
    pub(crate) fn confirm(&self) {
        self.stopped.cancel();
    }

    /// Waits until it has.
    pub(crate) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    pub(crate) fn tell(&self) {
        tracing::debug!(drain.stage = self.part, "a part of the pod is told to stop");
        self.told.cancel();
    }
}
