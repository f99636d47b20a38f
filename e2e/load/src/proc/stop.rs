//! Being told to end: a run then ends its servers and clients, which would go on by themselves otherwise.

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Runs `work` to its end, or until this process is told to end: then `work` is dropped, and with it all that it has started.
///
/// # Errors
/// That of `work`, or that it did not come to its end.
pub(crate) async fn unless_told<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => bail!("interrupted: all that was started is ended"),
        _ = terminate.recv() => bail!("told to end: all that was started is ended"),
        _ = hang_up.recv() => bail!("the terminal is gone: all that was started is ended"),
    }
}
