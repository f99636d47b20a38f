//! What was simulated in many runs.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::run::Outcome;

/// The sum of runs.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Runs that were done twice, with the same trace.
    pub repeated: u64,
    /// Virtual time.
    pub virtual_time: Duration,
    /// Lines of traces.
    pub lines: u64,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// In how many runs it happened at all.
    pub runs_with: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.virtual_time += outcome.took;
        self.lines += outcome.lines;
        for (what, times) in outcome.counts.iter().filter(|(_, times)| **times > 0) {
            *self.counts.entry(what).or_default() += times;
            *self.runs_with.entry(what).or_default() += 1;
        }
    }

    /// Adds the runs of another thread.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.repeated += other.repeated;
        self.virtual_time += other.virtual_time;
        self.lines += other.lines;
        for (mine, theirs) in [(&mut self.counts, &other.counts), (&mut self.runs_with, &other.runs_with)] {
            theirs.iter().for_each(|(what, times)| *mine.entry(what).or_default() += times);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_time.as_secs() / 3600;
        writeln!(f, "{} runs, {} of them twice; {hours} hours of virtual time, {} lines", self.runs, self.repeated, self.lines)?;
        for (what, times) in &self.counts {
            writeln!(f, "  {what:28} {times:>10}  in {:>6} runs", self.runs_with.get(what).copied().unwrap_or(0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up_on_one_thread_and_over_several() {
        let of = |counts: &[(&'static str, u64)]| Summary {
            runs: 1,
            counts: counts.iter().copied().collect(),
            runs_with: counts.iter().map(|(what, _)| (*what, 1)).collect(),
            ..Summary::default()
        };
        let mut sum = of(&[("a", 2)]);
        sum.merge(&of(&[("a", 3), ("b", 1)]));
        assert_eq!((sum.runs, sum.counts["a"], sum.runs_with["a"], sum.runs_with["b"]), (2, 5, 2, 1));
        assert!(sum.to_string().contains("2 runs"));
    }
}
