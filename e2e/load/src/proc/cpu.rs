//! CPU time of a process: exact in sum (by its threads' run time), and split into user and kernel as its clock ticks fell.

use std::{fs, iter::Sum, ops::Sub, path::Path};

use anyhow::{Context as _, Result};

/// CPU time that a process has used since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cpu {
    /// Nanoseconds on a CPU, in either mode.
    pub(crate) nanos: u64,
    /// Ticks in user mode.
    user_ticks: u64,
    /// Ticks in the kernel.
    kernel_ticks: u64,
}

/// CPU time so far of the process with this id.
///
/// # Errors
/// When there is none, or the kernel tells of no run times.
pub(crate) fn of(pid: u32) -> Result<Cpu> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(folder.join("stat")).with_context(|| format!("there is no process {pid}"))?;
    let (user_ticks, kernel_ticks) = ticks(&stat).context("the kernel's account of a process can't be read")?;
    let threads = fs::read_dir(folder.join("task"))?.flatten();
    // A thread that ends meanwhile takes its time with it; servers keep theirs.
    let nanos = threads.filter_map(|thread| run_time(&fs::read_to_string(thread.path().join("schedstat")).ok()?)).sum();
    Ok(Cpu { nanos, user_ticks, kernel_ticks })
}

/// The first number is the time on a CPU, in nanoseconds.
fn run_time(schedstat: &str) -> Option<u64> {
    schedstat.split(' ').next()?.parse().ok()
}

/// The name, in parentheses, may hold anything; user and kernel ticks are the 12th and 13th field after it.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

impl Cpu {
    /// Microseconds.
    #[expect(clippy::cast_precision_loss, reason = "a year of CPU time has fewer digits than a float")]
    pub(crate) fn micros(self) -> f64 {
        self.nanos as f64 / 1e3
    }

    /// The part of it in user mode, from 0 to 1; a tick is 10 ms, so that this is right only for some seconds of CPU time.
    #[expect(clippy::cast_precision_loss, reason = "ticks have fewer digits than a float")]
    pub(crate) fn user_share(self) -> f64 {
        self.user_ticks as f64 / (self.user_ticks + self.kernel_ticks).max(1) as f64
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(earlier.nanos),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            kernel_ticks: self.kernel_ticks.saturating_sub(earlier.kernel_ticks),
        }
    }
}

impl Sum for Cpu {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            nanos: sum.nanos + part.nanos,
            user_ticks: sum.user_ticks + part.user_ticks,
            kernel_ticks: sum.kernel_ticks + part.kernel_ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_past_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 700 300 0 0 20 0 1 0 5 1 1 1";
        assert_eq!(ticks(stat), Some((700, 300)));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn work_shows_in_the_account_of_this_process() {
        let before = of(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while (of(std::process::id()).unwrap() - before).nanos < 1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!((of(std::process::id()).unwrap() - before).micros() >= 1000.0);
    }
}
