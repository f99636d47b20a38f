//! Latencies: for each scenario a panel, with the percentiles of gateway and floor.

use super::{
    axis::{self, LogAxis},
    canvas::{Align, Canvas, Stroke},
    layout::{COLUMNS, heading, panel, small},
};
use crate::report::{Curve, Results, table::number};

/// Percentiles at the axis, which gives every further nine the same room.
const TICKS: [(f64, &str); 5] = [(50.0, "50 %"), (90.0, "90"), (99.0, "99"), (99.9, "99.9"), (99.99, "99.99")];
const HEIGHT: f64 = 190.0;
/// Above a panel's lines, for its title; below, for the percentiles.
const ABOVE: f64 = 42.0;
const BELOW: f64 = 40.0;
/// Left of the lines, for milliseconds.
const BESIDE: f64 = 40.0;
/// Width of a letter of small text, about.
const LETTER: f64 = 5.9;

/// Draws the section, if there are latencies. Returns where the next one begins.
pub(super) fn draw(canvas: &mut Canvas, results: &Results, top: f64) -> f64 {
    let mut scenarios: Vec<&str> = Vec::new();
    for curve in &results.curves {
        if !scenarios.contains(&curve.scenario) {
            scenarios.push(curve.scenario);
        }
    }
    if scenarios.is_empty() {
        return top;
    }
    let top = heading(
        canvas,
        top,
        "Latency",
        "Milliseconds from publishing to reading, or from connecting to ready, that so many per cent do not exceed. \
         Lower is better.",
    );
    let row = ABOVE + HEIGHT + BELOW;
    for (nth, scenario) in scenarios.iter().enumerate() {
        let curves: Vec<&Curve> = results.curves.iter().filter(|curve| curve.scenario == *scenario).collect();
        draw_panel(canvas, scenario, &curves, panel(nth), top + row * small(nth / COLUMNS));
    }
    top + row * small(scenarios.len().div_ceil(COLUMNS))
}

fn draw_panel(canvas: &mut Canvas, scenario: &str, curves: &[&Curve], (left, width): (f64, f64), top: f64) {
    let (from, to) = (left + BESIDE, left + width - 4.0);
    let (upper, lower) = (top + ABOVE, top + ABOVE + HEIGHT);
    let what =
        if scenario.starts_with("storm") || scenario == "take-over" { "connect to ready, ms" } else { "publish to read, ms" };
    canvas.text(left, top + 12.0, Align::Start, "panel", scenario);
    canvas.text(to, top + 12.0, Align::End, "small", what);
    let values = axis::round_values(curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1)));
    let (least, most) = (values.first().copied().unwrap_or(1.0), values.last().copied().unwrap_or(10.0));
    let y = LogAxis::new((least, lower), (most, upper));
    // With many powers of ten, only those are written.
    let every = values.len() <= 8;
    for value in values.iter().filter(|value| every || (value.log10() - value.log10().round()).abs() < 1e-9) {
        canvas.line((from, y.place(*value)), (to, y.place(*value)), Stroke::GRID);
        canvas.text(from - 6.0, y.place(*value) + 4.0, Align::End, "small", &axis::label(*value));
    }
    // The share above a percentile halves, and halves again, on an axis of equal factors.
    let x = LogAxis::new((100.0, from), (0.01, to));
    for (percentile, name) in TICKS {
        let place = x.place(100.0 - percentile);
        canvas.line((place, upper), (place, lower), Stroke::GRID);
        canvas.text(place, lower + 16.0, if percentile > 99.98 { Align::End } else { Align::Middle }, "small", name);
    }
    canvas.line((from, lower), (to, lower), Stroke::AXIS);
    for curve in curves {
        let points: Vec<(f64, f64)> =
            curve.points.iter().map(|(percentile, ms)| (x.place(100.0 - percentile), y.place(*ms))).collect();
        canvas.path(&points, stroke(curve));
    }
    legend(canvas, curves, left, top + 30.0);
}

/// The names of the lines, each with the number that is asked for most.
fn legend(canvas: &mut Canvas, curves: &[&Curve], left: f64, y: f64) {
    let mut x = left;
    for curve in curves {
        let p99 = curve.points.iter().find(|(percentile, _)| (percentile - 99.0).abs() < 1e-9).map(|point| point.1);
        let text = format!("{}, p99 {} ms", curve.server, p99.map(number).unwrap_or_default());
        canvas.line((x, y - 4.0), (x + 18.0, y - 4.0), stroke(curve));
        canvas.text(x + 24.0, y, Align::Start, if curve.server == "floor" { "small" } else { "small gateway strong" }, &text);
        x += 24.0 + LETTER * small(text.len()) + 18.0;
    }
}

fn stroke(curve: &Curve) -> Stroke {
    match curve.server {
        "floor" => Stroke { dashed: true, ..Stroke::curve("#9ca3af") },
        "all read" | "without resume" => Stroke { dashed: true, ..Stroke::curve("#60a5fa") },
        _ => Stroke::curve("#2563eb"),
    }
}
