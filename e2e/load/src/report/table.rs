//! The figures as text, each beside its budget.

use std::fmt::Write as _;

use super::{
    Figure, Results,
    budget::{self, Limit, Verdict},
};

const HEAD: [&str; 7] = ["scenario", "figure", "gateway", "unit", "floor", "budget", ""];
/// Numbers stand at the right of their column.
const RIGHT: [bool; 7] = [false, false, true, false, true, false, false];

/// The table, and the notes below it.
pub(crate) fn text(results: &Results) -> String {
    let rows: Vec<[String; 7]> = std::iter::once(HEAD.map(str::to_owned)).chain(results.figures.iter().map(row)).collect();
    let widths: [usize; 7] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for (nth, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(RIGHT) {
            let _ = if right { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
        if nth == 0 {
            let _ = writeln!(text, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
        }
    }
    for Figure { scenario, name, unit, value, beside, .. } in &results.figures {
        if let Some(beside) = beside.filter(|beside| *beside > 0.0) {
            let (times, value, beside) = (number(value / beside), number(*value), number(beside));
            let _ = writeln!(text, "* {scenario}, {name}: {value} {unit}, {times} times the other program's {beside} {unit}");
        }
    }
    for note in &results.notes {
        let _ = writeln!(text, "* {note}");
    }
    text
}

fn row(figure: &Figure) -> [String; 7] {
    let limit = budget::of(figure);
    let verdict = match budget::verdict(figure) {
        Verdict::Kept => "ok",
        Verdict::Missed => "MISSED",
        Verdict::Open => "",
    };
    [
        figure.scenario.to_owned(),
        format!("{}{}", figure.name, size(figure)),
        number(figure.value),
        figure.unit.to_owned(),
        figure.floor.map(number).unwrap_or_default(),
        limit.map(|limit| shown(limit, figure.floor)).unwrap_or_default(),
        verdict.to_owned(),
    ]
}

/// The size goes with the figures that are there for several.
fn size(figure: &Figure) -> String {
    if figure.scenario == "growth" && figure.sockets > 0 {
        format!(", {} x {}", figure.pods, figure.sockets)
    } else {
        String::new()
    }
}

fn shown(limit: Limit, floor: Option<f64>) -> String {
    let bound = budget::bound(limit, floor).map(number);
    match (limit, bound) {
        (Limit::AtLeast(_), Some(bound)) => format!(">= {bound}"),
        (Limit::TimesFloor(times), Some(bound)) => format!("<= {bound} ({times} x floor)"),
        (Limit::TimesFloor(times), None) => format!("<= {times} x floor"),
        (_, bound) => format!("<= {}", bound.unwrap_or_default()),
    }
}

/// Three digits that count, and no more; a dash for what is no number.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "-".to_owned(),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Size, set_beside};

    #[test]
    fn a_figure_stands_beside_its_budget_and_a_miss_is_marked() {
        let size = Size { sockets: 10_000, pods: 1 };
        let figures = vec![
            size.figure("idle", "memory per socket", "KB", 2.5, Some(0.5)),
            size.figure("fan-out", "CPU per delivery", "us", 3.0, Some(2.0)),
        ];
        let text = text(&Results { figures, ..Results::default() });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].contains("2.50") && lines[2].contains("<= 3") && lines[2].ends_with("ok"), "{text}");
        assert!(lines[3].contains("<= 2.20 (1.1 x floor)") && lines[3].ends_with("MISSED"), "{text}");
    }

    #[test]
    fn the_other_programs_figures_are_told_with_how_far_they_are_apart() {
        let size = Size { sockets: 10_000, pods: 1 };
        let mut figures = vec![size.figure("fan-out", "CPU per delivery", "us", 3.0, None)];
        let others = [
            size.figure("burst", "CPU per delivery", "us", 3.0, Some(9.0)),
            size.figure("fan-out", "CPU per delivery", "us", 3.0, Some(2.0)),
        ];
        set_beside(&mut figures, &others);
        let text = text(&Results { figures, ..Results::default() });
        assert!(text.ends_with("* fan-out, CPU per delivery: 3 us, 1.50 times the other program's 2 us\n"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!([0.1234, 1.234, 12.34, 123.4, 5.0, f64::NAN].map(number), ["0.123", "1.23", "12.3", "123", "5", "-"]);
    }
}
