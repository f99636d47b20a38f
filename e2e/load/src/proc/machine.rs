//! What else the machine was doing: figures of a busy machine are worse, and their reader should know.

use std::fs;

use anyhow::{Context as _, Result};

use crate::clock;

/// A tick of the kernel's accounts, on every Linux.
const TICK_SECONDS: f64 = 0.01;

/// CPU time of the machine, and the part of it that this process and its ended children used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    busy_ticks: u64,
    own_ticks: u64,
    at: u64,
}

impl Machine {
    /// The accounts as they are now.
    ///
    /// # Errors
    /// When the kernel does not show them.
    pub(crate) fn now() -> Result<Self> {
        let read = |path| fs::read_to_string(path).with_context(|| format!("{path} can't be read"));
        let busy_ticks = busy(&read("/proc/stat")?).context("the kernel's account of the machine can't be read")?;
        let own_ticks = own(&read("/proc/self/stat")?).context("the kernel's account of this process can't be read")?;
        Ok(Self { busy_ticks, own_ticks, at: clock::nanos() })
    }

    /// The share of all cores, from 0 to 1, that others have used since. Children count as others until they have ended.
    #[expect(clippy::cast_precision_loss, reason = "ticks and nanoseconds of a run have fewer digits than a float")]
    pub(crate) fn others_since(&self, before: &Self, cores: u32) -> f64 {
        let ticks = (self.busy_ticks - before.busy_ticks).saturating_sub(self.own_ticks - before.own_ticks);
        let seconds = self.at.saturating_sub(before.at) as f64 / 1e9 * f64::from(cores.max(1));
        (ticks as f64 * TICK_SECONDS / seconds.max(TICK_SECONDS)).min(1.0)
    }
}

/// `cpu user nice system idle iowait irq softirq steal …`: the time of programs, and what a hypervisor kept. Interrupts are left
/// out: the load's own packets cause them.
fn busy(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat.lines().next()?.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    Some(fields.get(..3)?.iter().sum::<u64>() + fields.get(7).copied().unwrap_or(0))
}

/// User and kernel ticks of the process, then those of its children: the 12th to 15th field behind its name.
fn own(stat: &str) -> Option<u64> {
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_stolen_time_make_the_machine_busy() {
        assert_eq!(busy("cpu  10 1 5 1000 50 3 4 7 0 0\ncpu0 1 1 1\n"), Some(23));
        assert_eq!(busy("cpu 1"), None);
    }

    #[test]
    fn children_that_have_ended_count_as_own() {
        assert_eq!(own("1 (a b) S 1 1 1 0 -1 4 100 0 0 0 7 3 20 10 20 0"), Some(40));
    }

    #[test]
    fn what_is_not_own_was_used_by_others() {
        let before = Machine { busy_ticks: 100, own_ticks: 10, at: 0 };
        // Of 2 cores for 10 s, 15 s were busy, and 5 s of them own.
        let after = Machine { busy_ticks: 1600, own_ticks: 510, at: 10_000_000_000 };
        assert!((after.others_since(&before, 2) - 0.5).abs() < 1e-9);
    }
}
