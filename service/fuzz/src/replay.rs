//! Targets without libFuzzer: what a file holds, read once.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use crate::Target;

/// Reads each file, and each file of each folder, of `paths`. A failure is a panic, as libFuzzer has it.
pub fn replay(target: &Target, paths: impl Iterator<Item = OsString>) -> ExitCode {
    let mut ended = ExitCode::SUCCESS;
    for path in paths.map(PathBuf::from) {
        let within = std::fs::read_dir(&path).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
        for file in within.unwrap_or_else(|_| vec![path]) {
            match std::fs::read(&file) {
                Ok(input) => target.check(&input),
                Err(error) => {
                    // A closed pipe is nobody's fault.
                    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}: {error}\n", file.display()));
                    ended = ExitCode::FAILURE;
                }
            }
        }
    }
    ended
}
