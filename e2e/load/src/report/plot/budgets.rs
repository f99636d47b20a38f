//! Every figure that has a budget, by how far it is from it.

use super::{
    axis::LogAxis,
    canvas::{Align, Canvas, Stroke, WIDTH},
    layout::{MARGIN, heading, small},
};
use crate::report::{
    Figure, Results,
    budget::{self, Limit, Verdict},
    table::number,
};

/// The axis ends at this many times the budget, and begins at this part of it.
const REACH: f64 = 8.0;
const TICKS: [(f64, &str); 7] =
    [(0.125, "1/8"), (0.25, "1/4"), (0.5, "1/2"), (1.0, "budget"), (2.0, "2 x"), (4.0, "4 x"), (8.0, "8 x")];
const ROW: f64 = 26.0;
const LABELS: f64 = 330.0;
const LEFT: f64 = MARGIN + LABELS + 20.0;
const RIGHT: f64 = WIDTH - MARGIN - 270.0;

/// Draws the section, if there are such figures. Returns where the next one begins.
pub(super) fn draw(canvas: &mut Canvas, results: &Results, top: f64) -> f64 {
    let judged = |figure: &&Figure| budget::verdict(figure) != Verdict::Open;
    let figures: Vec<&Figure> = results.figures.iter().filter(judged).collect();
    if figures.is_empty() {
        return top;
    }
    let top = heading(
        canvas,
        top,
        "Budgets",
        "How many times its budget each figure is: to the left of the line it keeps it. \
         The diamond is the floor under the same load.",
    );
    let axis = LogAxis::new((1.0 / REACH, LEFT), (REACH, RIGHT));
    let height = ROW * small(figures.len());
    let middle = axis.place(1.0);
    canvas.rect((LEFT, top + 18.0), (middle - LEFT, height), "#f0fdf4");
    canvas.rect((middle, top + 18.0), (RIGHT - middle, height), "#fef2f2");
    for (value, name) in TICKS {
        let x = axis.place(value);
        let stroke = if name == "budget" { Stroke { color: "#374151", width: 1.4, dashed: false } } else { Stroke::GRID };
        canvas.line((x, top + 14.0), (x, top + 18.0 + height), stroke);
        canvas.text(x, top + 9.0, Align::Middle, if name == "budget" { "small strong" } else { "small" }, name);
    }
    let mut scenario = "";
    for (nth, figure) in figures.iter().enumerate() {
        let y = top + 18.0 + ROW * (small(nth) + 0.5);
        if figure.scenario != scenario {
            scenario = figure.scenario;
            canvas.line((MARGIN, y - ROW / 2.0), (WIDTH - MARGIN, y - ROW / 2.0), Stroke::GRID);
            canvas.text(MARGIN, y + 4.5, Align::Start, "strong", scenario);
        }
        row(canvas, figure, axis, y);
    }
    top + 18.0 + height
}

fn row(canvas: &mut Canvas, figure: &Figure, axis: LogAxis, y: f64) {
    let Some(limit) = budget::of(figure) else { return };
    let bound = budget::bound(limit, figure.floor).unwrap_or_default();
    let kept = budget::verdict(figure) == Verdict::Kept;
    let color = if kept { "#16a34a" } else { "#dc2626" };
    canvas.text(MARGIN + LABELS, y + 4.5, Align::End, "", figure.name);
    let times = times(figure.value, bound, limit);
    let (middle, x) = (axis.place(1.0), axis.place(times));
    canvas.line((middle, y), (x, y), Stroke { color, width: 3.0, dashed: false });
    if let Some(floor) = figure.floor.filter(|floor| *floor > 0.0) {
        canvas.diamond((axis.place(self::times(floor, bound, limit)), y), 6.0, "#9ca3af");
    }
    if times > REACH {
        canvas.text(x + 2.0, y + 5.5, Align::Start, "missed strong", "»");
    } else {
        canvas.dot((x, y), 6.0, color);
    }
    let value = format!("{} {}", number(figure.value), figure.unit);
    canvas.text(RIGHT + 16.0, y + 4.5, Align::Start, if kept { "strong ok" } else { "strong missed" }, value.trim_end());
    let sign = if matches!(limit, Limit::AtLeast(_)) { "at least" } else { "at most" };
    canvas.text(WIDTH - MARGIN, y + 4.5, Align::End, "muted", &format!("{sign} {}", number(bound)));
}

/// How many times its budget; where more is better, the other way round.
fn times(value: f64, bound: f64, limit: Limit) -> f64 {
    let (amount, by) = if matches!(limit, Limit::AtLeast(_)) { (bound, value) } else { (value, bound) };
    match (amount > 0.0, by > 0.0) {
        (false, _) if amount <= 0.0 => 1.0 / REACH,
        (true, true) => amount / by,
        _ => 2.0 * REACH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_so_many_times_its_budget_and_more_is_worse() {
        for (value, bound, limit, expected) in [
            (6.0, 3.0, Limit::AtMost(3.0), 2.0),
            (0.6, 1.2, Limit::AtLeast(1.2), 2.0),
            (0.0, 0.0, Limit::AtMost(0.0), 1.0 / REACH),
            (1.0, 0.0, Limit::AtMost(0.0), 2.0 * REACH),
            (f64::NAN, 3.0, Limit::AtMost(3.0), 2.0 * REACH),
        ] {
            assert!((times(value, bound, limit) - expected).abs() < 1e-9, "{value} {bound} {limit:?}");
        }
    }
}
