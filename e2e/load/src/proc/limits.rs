//! The limit on open files, which every socket needs one of.

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of this process, and of those it starts, as far as it may. Returns it; none: there is no limit.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn raise_open_files() -> Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("the limit on open files can't be raised")?;
    Ok(maximum)
}
