//! Rows as Markdown.

use std::{fmt::Write as _, time::Duration};

use daisi_ws_testbed::closes;

use crate::{
    impact::probe::Answers,
    run::row::{Row, Span},
};

/// The head of the table.
#[must_use]
pub fn head() -> String {
    let cells = [
        "Attack",
        "Events p50 / p99 / max, ms",
        "Lost, doubled",
        "Audience's sockets closed, gaps",
        "`/health` p99 / max, ms",
        "`/metrics` p99 / max, ms",
        "`/health` at the browsers' port",
        "New gRPC connections",
        "New sessions",
        "Memory, MB",
        "CPU, %",
        "Log lines/s",
        "Redis commands/s",
        "Strangers",
    ];
    format!("| {} |\n|{}\n", cells.join(" | "), "---|".repeat(cells.len()))
}

/// A line of it; what was before the attack is left of the arrow.
#[must_use]
pub fn line(row: &Row) -> String {
    let (before, during) = (&row.before, &row.during);
    let heard = |span: &Span| {
        let took = &span.heard.took;
        format!("{} / {} / {}", milliseconds(took.per_mille(500)), milliseconds(took.per_mille(990)), milliseconds(took.max()))
    };
    let redis = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), |count| count.to_string());
    let cells = [
        format!("{}: {}", row.attack.name, row.attack.says),
        format!("{} → {}", heard(before), heard(during)),
        format!("{}, {}", during.heard.lost, during.heard.doubled),
        format!("{}, {}", closes::words(&row.closed), row.gaps),
        answers(&before.health, &during.health),
        answers(&before.metrics, &during.metrics),
        answers(&before.front, &during.front),
        answers(&before.grpc, &during.grpc),
        answers(&before.sessions, &during.sessions),
        format!("{} → {}", before.memory >> 20, during.memory >> 20),
        format!("{} → {}", before.cpu, during.cpu),
        format!("{} → {}", before.lines, during.lines),
        format!("{} → {}", redis(before.redis), redis(during.redis)),
        strangers(row),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn milliseconds(time: Duration) -> String {
    if time < Duration::from_millis(10) {
        format!("{}.{}", time.as_micros() / 1000, time.as_micros() % 1000 / 100)
    } else {
        time.as_millis().to_string()
    }
}

fn answers(before: &Answers, during: &Answers) -> String {
    let of = |answers: &Answers| {
        if answers.took.is_empty() {
            return "never asked in time".to_owned();
        }
        let mut text = format!("{} / {}", milliseconds(answers.took.per_mille(990)), milliseconds(answers.took.max()));
        if answers.failed > 0 {
            let _ = write!(text, " ({} of {} failed)", answers.failed, answers.took.len());
        }
        text
    };
    format!("{} → {}", of(before), of(during))
}

fn strangers(row: &Row) -> String {
    let counts = row.counts.iter().map(|(what, count)| format!("{what} {count}"));
    counts.chain(row.remarks.iter().map(|remark| remark.replace(['\n', '|'], " "))).collect::<Vec<_>>().join("; ")
}
