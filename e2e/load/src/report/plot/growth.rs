//! Costs against the number of sockets, a line for each number of pods: flat is what they should be.

use super::{
    axis::{self, LogAxis},
    canvas::{Align, Canvas, Stroke},
    layout::{heading, panel},
};
use crate::report::{Figure, Results};

const COSTS: [&str; 3] = ["pod CPU per connect", "memory per socket", "CPU per delivery"];
const COLORS: [&str; 4] = ["#2563eb", "#9333ea", "#ea580c", "#0d9488"];
const HEIGHT: f64 = 200.0;
const ABOVE: f64 = 26.0;
const BELOW: f64 = 40.0;
const BESIDE: f64 = 40.0;
/// Right of the lines, for their names.
const NAMES: f64 = 52.0;
/// Parts of the value axis.
const PARTS: u8 = 4;

/// Draws the section, if sizes were measured. Returns where the next one begins.
pub(super) fn draw(canvas: &mut Canvas, results: &Results, top: f64) -> f64 {
    let measured =
        |name: &str| -> Vec<&Figure> { results.figures.iter().filter(|f| f.scenario == "growth" && f.name == name).collect() };
    if COSTS.iter().all(|name| measured(name).is_empty()) {
        return top;
    }
    let top = heading(
        canvas,
        top,
        "Growth",
        "What one connect, one idle socket and one delivery cost, by sockets a pod. A flat line is a cost that does not grow.",
    );
    for (nth, name) in COSTS.iter().enumerate() {
        draw_panel(canvas, name, &measured(name), panel(nth), top);
    }
    top + ABOVE + HEIGHT + BELOW
}

fn draw_panel(canvas: &mut Canvas, name: &str, figures: &[&Figure], (left, width): (f64, f64), top: f64) {
    let Some(first) = figures.first() else { return };
    let (from, to) = (left + BESIDE, left + width - NAMES);
    let (upper, lower) = (top + ABOVE, top + ABOVE + HEIGHT);
    canvas.text(left, top + 12.0, Align::Start, "panel", name);
    canvas.text(to + NAMES, top + 12.0, Align::End, "small", if first.unit == "us" { "µs" } else { first.unit });
    let shown = figures.iter().flat_map(|figure| [Some(figure.value), figure.floor]).flatten().filter(|value| value.is_finite());
    // From zero, so that a difference looks as large as it is.
    let most = axis::round_above(shown.fold(0.0, f64::max));
    let y = |value: f64| if value.is_finite() { lower - value / most * HEIGHT } else { lower };
    for part in 0..=PARTS {
        let value = most * f64::from(part) / f64::from(PARTS);
        canvas.line((from, y(value)), (to, y(value)), if part == 0 { Stroke::AXIS } else { Stroke::GRID });
        canvas.text(from - 6.0, y(value) + 4.0, Align::End, "small", &axis::label(value));
    }
    let mut sizes: Vec<u32> = figures.iter().map(|figure| figure.sockets).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let (least, largest) = (f64::from(sizes.first().copied().unwrap_or(1)), f64::from(sizes.last().copied().unwrap_or(1)));
    let x = LogAxis::new((least, from + 10.0), (largest.max(least + 1.0), to - 6.0));
    for size in &sizes {
        canvas.line((x.place(f64::from(*size)), upper), (x.place(f64::from(*size)), lower), Stroke::GRID);
        canvas.text(x.place(f64::from(*size)), lower + 16.0, Align::Middle, "small", &axis::label(f64::from(*size)));
    }
    let floor: Vec<(f64, f64)> =
        figures.iter().filter_map(|figure| Some((x.place(f64::from(figure.sockets)), y(figure.floor?)))).collect();
    let mut names = Vec::new();
    if let Some(end) = floor.last() {
        canvas.path(&floor, Stroke { dashed: true, ..Stroke::curve("#9ca3af") });
        names.push((end.1, "floor".to_owned(), "#6b7280"));
    }
    let mut pods: Vec<u32> = figures.iter().map(|figure| figure.pods).collect();
    pods.sort_unstable();
    pods.dedup();
    for (pods, color) in pods.iter().zip(COLORS) {
        let of = figures.iter().filter(|figure| figure.pods == *pods);
        let points: Vec<(f64, f64)> = of.map(|figure| (x.place(f64::from(figure.sockets)), y(figure.value))).collect();
        canvas.path(&points, Stroke::curve(color));
        points.iter().for_each(|point| canvas.dot(*point, 3.6, color));
        let name = if *pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") };
        names.extend(points.last().map(|end| (end.1, name, color)));
    }
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut last = f64::NEG_INFINITY;
    for (at, name, color) in names {
        let at = at.max(last + 14.0);
        last = at;
        canvas.line((to + 2.0, at), (to + 10.0, at), Stroke::curve(color));
        canvas.text(to + 14.0, at + 4.0, Align::Start, "small", &name);
    }
}
