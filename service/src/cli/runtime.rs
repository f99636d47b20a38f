//! What short commands run on.

use super::error::CliError;

/// Runs something short on this thread.
pub(super) fn block_on<F: Future>(work: F) -> Result<F::Output, CliError> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}
