//! Why a command failed, and the exit code that says so.

use std::{error::Error, io};

use crate::{
    config::ConfigError,
    telemetry::{Chain, TelemetryError},
};

/// A command failed.
pub(super) const EXIT_FAILED: u8 = 1;
/// The configuration is wrong: `EX_CONFIG` of sysexits.h, so that a supervisor can tell it from a crash.
const EXIT_CONFIG: u8 = 78;

/// Why a command failed, in words for a terminal.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logs or traces can't be had as configured.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// No threads, or nowhere to write to.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
    /// The command itself failed.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// Any of these, after it was logged: it is not said again.
    #[error(transparent)]
    Logged(Box<CliError>),
}

impl CliError {
    /// The command itself failed, for this reason.
    pub fn failed(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(reason.into())
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Telemetry(_) => EXIT_CONFIG,
            Self::System(_) | Self::Failed(_) => EXIT_FAILED,
            Self::Logged(error) => error.exit_code(),
        }
    }

    /// The error for people: every problem on a line of its own.
    pub(super) fn report(&self) -> String {
        match self {
            Self::Config(error) => {
                let lines = error.problems.iter().map(|problem| format!("\n  {problem}"));
                let listed = lines.fold("error: the configuration is not valid:".to_owned(), |text, line| text + &line);
                listed
                    + "\nSet these in the file or the environment (docs/configuration.md has every key); `dev` needs no \
                       configuration."
            }
            other => format!("error: {}", Chain(other)),
        }
    }
}
