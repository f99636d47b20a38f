//! Memory of a process.

use std::fs;

use anyhow::{Context as _, Result};

/// Bytes that the process with this id alone holds: pages that it has written to, as `smaps_rollup` counts them.
///
/// # Errors
/// When there is no such process, or its memory can't be looked at.
pub(crate) fn private_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the memory of a process can't be read")?;
    kilobytes(&text, "Private_Dirty:").map(|kilobytes| kilobytes * 1024).context("the kernel tells nothing of private pages")
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_asked_for_is_read() {
        let text = "Rss:   900 kB\nPrivate_Clean:  1 kB\nPrivate_Dirty:      712 kB\n";
        assert_eq!(kilobytes(text, "Private_Dirty:"), Some(712));
        assert_eq!(kilobytes(text, "Swap:"), None);
    }

    #[test]
    fn what_this_process_writes_to_is_counted() {
        const BYTES: usize = 32 * 1024 * 1024;
        let before = private_bytes(std::process::id()).unwrap();
        let block = std::hint::black_box(vec![1_u8; BYTES]);
        let after = private_bytes(std::process::id()).unwrap();
        assert!(after > before + (BYTES as u64) / 2, "{before} {after} {}", block.len());
    }
}
