//! Shapes and text as SVG.

use std::fmt::Write as _;

/// Width of the picture.
pub(super) const WIDTH: f64 = 1200.0;

const STYLE: &str = "\
text{font-family:Inter,'Segoe UI',Helvetica,Arial,sans-serif;font-size:13px;fill:#1f2937}\
.title{font-size:24px;font-weight:600}.heading{font-size:17px;font-weight:600}.panel{font-size:14px;font-weight:600}\
.muted{fill:#6b7280}.small{font-size:11px;fill:#6b7280}.strong{font-weight:600}\
.ok{fill:#15803d}.missed{fill:#b91c1c}.gateway{fill:#1d4ed8}.floor{fill:#6b7280}\
";

/// Which end of a text stands at its place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Align {
    Start,
    Middle,
    End,
}

/// How a line looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stroke {
    pub(super) color: &'static str,
    pub(super) width: f64,
    pub(super) dashed: bool,
}

impl Stroke {
    /// Lines behind everything.
    pub(super) const GRID: Self = Self { color: "#e5e7eb", width: 1.0, dashed: false };
    /// An axis.
    pub(super) const AXIS: Self = Self { color: "#9ca3af", width: 1.0, dashed: false };

    /// A solid line of a curve.
    pub(super) fn curve(color: &'static str) -> Self {
        Self { color, width: 2.2, dashed: false }
    }
}

/// A picture in the making.
#[derive(Debug)]
pub(super) struct Canvas {
    body: String,
}

impl Canvas {
    pub(super) fn new() -> Self {
        Self { body: String::new() }
    }

    pub(super) fn text(&mut self, x: f64, y: f64, align: Align, class: &str, text: &str) {
        let anchor = match align {
            Align::Start => "start",
            Align::Middle => "middle",
            Align::End => "end",
        };
        let text = escape(text);
        let _ = writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#);
    }

    pub(super) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        let _ =
            writeln!(self.body, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="3" fill="{fill}"/>"#);
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        self.path(&[from, to], stroke);
    }

    pub(super) fn path(&mut self, points: &[(f64, f64)], Stroke { color, width, dashed }: Stroke) {
        let places: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let shape = r#"fill="none" stroke-linejoin="round" stroke-linecap="round""#;
        let dash = if dashed { r#" stroke-dasharray="5 4""# } else { "" };
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" {shape} stroke="{color}" stroke-width="{width}"{dash}/>"#,
            places.join(" ")
        );
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, fill: &str) {
        let _ = writeln!(
            self.body,
            r##"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{fill}" stroke="#fff" stroke-width="1.2"/>"##
        );
    }

    /// A square on its corner.
    pub(super) fn diamond(&mut self, (x, y): (f64, f64), size: f64, fill: &str) {
        let corners = [(x, y - size), (x + size, y), (x, y + size), (x - size, y)].map(|(x, y)| format!("{x:.1},{y:.1}"));
        let _ =
            writeln!(self.body, r##"<polygon points="{}" fill="{fill}" stroke="#fff" stroke-width="1.2"/>"##, corners.join(" "));
    }

    /// The whole picture, of this height.
    pub(super) fn finish(self, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             width=\"{WIDTH}\" height=\"{height:.0}\">\n\
             <style>{STYLE}</style>\n<rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut canvas = Canvas::new();
        canvas.text(0.0, 0.0, Align::Start, "", "a < b & \"c\" > d");
        assert!(canvas.finish(10.0).contains("a &lt; b &amp; &quot;c&quot; &gt; d"));
    }
}
