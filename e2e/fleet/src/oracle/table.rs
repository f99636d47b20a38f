//! What was measured, as files: one a row of the fault table, from which `docs/faults.md` is written.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use daisi_ws_testbed::closes;
use serde::{Deserialize, Serialize};

use super::{lateness::Lateness, verdict::Verdict};
use crate::artifacts::folder;

/// One measured fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Orders the table.
    pub place: u32,
    /// What was done.
    pub fault: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// Keeps a verdict for the table.
///
/// # Errors
/// When it can't be written.
pub fn keep(place: u32, fault: &str, verdict: &Verdict) -> Result<()> {
    let folder = folder("faults");
    std::fs::create_dir_all(&folder)?;
    let name: String = fault.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '-' }).collect();
    let measured = Measured { place, fault: fault.to_owned(), verdict: verdict.clone() };
    std::fs::write(folder.join(format!("{place:03}-{name}.json")), serde_json::to_string_pretty(&measured)?)?;
    Ok(())
}

/// All that was kept, in order.
///
/// # Errors
/// When nothing was, or it can't be read.
pub fn kept() -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder("faults")).context("nothing was measured yet")? {
        all.push(serde_json::from_str::<Measured>(&std::fs::read_to_string(file?.path())?)?);
    }
    all.sort_by_key(|measured| measured.place);
    Ok(all)
}

/// The table, as Markdown.
#[must_use]
pub fn table(all: &[Measured]) -> String {
    const HEAD: [&str; 15] = [
        "Fault",
        "Events/s in all",
        "Events/s a session",
        "Lost",
        "Doubled",
        "Misdelivered",
        "Resumed",
        "Announced (gap frames)",
        "Gone with its socket",
        "Away",
        "Sockets ended",
        "Worst silence",
        "Others' p99 before → during (in time)",
        "Late for others",
        "Recovery",
    ];
    let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), "---|".repeat(HEAD.len()));
    for Measured { fault, verdict, .. } in all {
        let cells = [
            fault.clone(),
            format!("{:.0}", verdict.stored_rate),
            format!("{:.0}", verdict.rate),
            verdict.lost.to_string(),
            verdict.doubled.to_string(),
            verdict.misdelivered.to_string(),
            verdict.resumed.to_string(),
            format!("{} ({})", verdict.announced, verdict.gaps),
            verdict.with_socket.to_string(),
            verdict.away.to_string(),
            ended(verdict),
            seconds(verdict.worst_silence_ms),
            lateness(&verdict.others),
            verdict.others.late.to_string(),
            seconds(verdict.recovery_ms),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn ended(verdict: &Verdict) -> String {
    let words = closes::words(&verdict.closes);
    if verdict.moves.moved > 0 { format!("{words} ({} moved)", verdict.moves.moved) } else { words }
}

fn lateness(others: &Lateness) -> String {
    let word = |time: Option<u64>| time.map_or_else(|| "–".to_owned(), |time| time.to_string());
    format!("{} → {} ({}) ms", word(others.before_ms), word(others.during_ms), word(others.in_time_ms))
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}
