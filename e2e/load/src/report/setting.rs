//! Where and with what a run was made: without it, figures say nothing.

use std::{fs, path::Path, process::Command, thread};

use daisi_ws_testbed::program;
use serde::Serialize;

use crate::options::Sizes;

/// The machine, the programs and the sizes of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setting {
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// The processor's name.
    pub(crate) processor: String,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// Memory of the machine, in megabytes.
    pub(crate) memory_megabytes: u64,
    /// What the gateway says of its version.
    pub(crate) gateway: String,
    /// What Redis says.
    pub(crate) redis: String,
    /// What NATS says.
    pub(crate) nats: String,
    /// The version of this program.
    pub(crate) tool: &'static str,
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// The sizes.
    pub(crate) sizes: Sizes,
}

impl Setting {
    /// Asks the machine and the programs. What does not answer is `unknown`.
    pub(crate) fn of(service: &Path, sizes: Sizes) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (processors, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            processor: field(&processors, "model name").unwrap_or("unknown").to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_megabytes: field(&memory, "MemTotal").and_then(kilobytes).unwrap_or_default() / 1024,
            gateway: version(service),
            redis: version(&program::redis()),
            nats: version(&program::nats()),
            tool: env!("CARGO_PKG_VERSION"),
            at: daisi_ws_service::runtime::clock::now().as_secs(),
            sizes,
        }
    }
}

/// The value behind the first `name:`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim)
}

fn kilobytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse().ok()
}

/// The first line that it prints when asked.
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_what_stands_behind_its_colon() {
        let text = "model\t\t: 1\nmodel name\t: Some CPU @ 3 GHz\nMemTotal:       24 kB\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 3 GHz"));
        assert_eq!(field(text, "MemTotal").and_then(kilobytes), Some(24));
        assert_eq!(field(text, "other"), None);
    }

    #[test]
    fn a_program_that_is_not_there_has_no_known_version() {
        assert_eq!(version(Path::new("/nowhere/at/all")), "unknown");
    }
}
