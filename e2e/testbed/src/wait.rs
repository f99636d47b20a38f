//! Waiting for a condition, with a deadline.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks again and again until the answer is yes; an error that names `what` after `within`.
///
/// # Errors
/// When the deadline passes.
pub async fn until<F: Future<Output = bool>>(what: &str, within: Duration, mut condition: impl FnMut() -> F) -> Result<()> {
    let deadline = Instant::now() + within;
    while !condition().await {
        if Instant::now() > deadline {
            bail!("waited {} s in vain until {what}", within.as_secs());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
