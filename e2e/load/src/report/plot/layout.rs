//! Where panels and headings of the picture are.

use super::canvas::{Align, Canvas, WIDTH};

/// Free space at the left and right.
pub(super) const MARGIN: f64 = 40.0;
/// Panels side by side.
pub(super) const COLUMNS: usize = 3;
pub(super) const GUTTER: f64 = 28.0;

/// With a comma before the last three digits.
pub(super) fn thousands(count: u32) -> String {
    if count < 1000 { count.to_string() } else { format!("{},{:03}", count / 1000, count % 1000) }
}

/// The left edge and the width of the nth panel of a row.
pub(super) fn panel(nth: usize) -> (f64, f64) {
    let columns = small(COLUMNS);
    let width = (WIDTH - 2.0 * MARGIN - GUTTER * (columns - 1.0)) / columns;
    (MARGIN + small(nth % COLUMNS) * (width + GUTTER), width)
}

/// A small count as a coordinate.
pub(super) fn small(count: usize) -> f64 {
    f64::from(u16::try_from(count).unwrap_or(u16::MAX))
}

/// A heading over a section. Returns where the section begins.
pub(super) fn heading(canvas: &mut Canvas, top: f64, title: &str, explanation: &str) -> f64 {
    canvas.text(MARGIN, top + 34.0, Align::Start, "heading", title);
    canvas.text(MARGIN, top + 54.0, Align::Start, "muted", explanation);
    top + 72.0
}
