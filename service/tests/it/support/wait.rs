//! Waiting for a condition, with a deadline.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Long enough for a loaded machine; a test that waits this long fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Asks again and again until the answer is yes. Panics, naming `what`, after [`DEADLINE`].
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The future's output. Panics, naming `what`, after [`DEADLINE`].
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}
