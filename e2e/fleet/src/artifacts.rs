//! Where the harness puts what it writes: logs and measured faults.

use std::path::{Path, PathBuf};

/// A folder for what the harness writes, under the build's own.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    target.join("e2e").join(name)
}
