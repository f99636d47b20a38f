//! What befalls a single container.

use crate::containers::{docker::docker, pod::Pod};
use anyhow::Result;

/// Stops a container's processes where they are, as a host that hangs does.
///
/// # Errors
/// When it does not run.
pub async fn freeze(container: &str) -> Result<()> {
    docker(&["pause", container]).await.map(drop)
}

/// Lets a frozen container go on.
///
/// # Errors
/// When it is not frozen.
pub async fn thaw(container: &str) -> Result<()> {
    docker(&["unpause", container]).await.map(drop)
}

/// Ends a container at once.
///
/// # Errors
/// When it does not run.
pub async fn kill(container: &str) -> Result<()> {
    docker(&["kill", container]).await.map(drop)
}

/// Starts a container that has ended.
///
/// # Errors
/// When it does not start.
pub async fn start(container: &str) -> Result<()> {
    docker(&["start", container]).await.map(drop)
}

/// Ends a container as an orchestrator does, and starts it again.
///
/// # Errors
/// When it does not start.
pub async fn restart(container: &str) -> Result<()> {
    docker(&["restart", "--time", "40", container]).await.map(drop)
}

/// Starts a pod that has ended, and waits until it is ready, at an address that may be another one.
///
/// # Errors
/// When it takes too long.
pub async fn start_pod(pod: &Pod) -> Result<()> {
    start(&pod.container).await?;
    pod.find().await?;
    pod.ready().await
}
