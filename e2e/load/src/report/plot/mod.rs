//! The figures as one picture: each against its budget, the latencies' percentiles, and the growth curves.

mod axis;
mod budgets;
mod canvas;
mod curves;
mod growth;
mod layout;

use super::{Results, setting::Setting};
use canvas::{Align, Canvas};
use layout::{MARGIN, thousands};

/// The picture, as SVG.
pub(crate) fn svg(setting: &Setting, results: &Results) -> String {
    let mut canvas = Canvas::new();
    canvas.text(MARGIN, 44.0, Align::Start, "title", "The gateway against its budgets and against the floor");
    canvas.text(MARGIN, 68.0, Align::Start, "muted", &subtitle(setting));
    let mut top = 84.0;
    if let Some(note) = results.notes.iter().find(|note| note.starts_with("Other programs")) {
        canvas.text(MARGIN, 90.0, Align::Start, "small missed", note);
        top += 18.0;
    }
    for section in [budgets::draw, curves::draw, growth::draw] {
        top = section(&mut canvas, results, top);
    }
    canvas.text(
        MARGIN,
        top + 26.0,
        Align::Start,
        "small",
        "The floor is the least that any server must do for the same sockets: \
         no sessions, no tokens, no acknowledgements, no metrics.",
    );
    canvas.finish(top + 44.0)
}

fn subtitle(setting: &Setting) -> String {
    let Setting { sizes, cores, processor, kernel, gateway, .. } = setting;
    format!(
        "{} sockets a pod on {cores} cores ({processor}, Linux {kernel}), load and servers on the same cores; {gateway}",
        thousands(sizes.sockets)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        options::Sizes,
        report::{Curve, Size},
    };

    fn setting() -> Setting {
        let sizes = Sizes {
            sockets: 10_000,
            pods: 1,
            idle_seconds: 1,
            events: 1,
            bursts: 1,
            rate: 1,
            spread_turns: 1,
            spread_seconds: 1,
            slow_seconds: 1,
            slow_sockets: 10,
            in_flight: 1,
        };
        Setting {
            cores: 2,
            processor: "A & B <fast>".to_owned(),
            kernel: "6".to_owned(),
            memory_megabytes: 1,
            gateway: "1".to_owned(),
            redis: "7".to_owned(),
            nats: "2".to_owned(),
            tool: "0",
            at: 0,
            sizes,
        }
    }

    /// Every element is closed in its order, every attribute quoted, nothing is left that should be escaped.
    fn assert_well_formed(xml: &str) {
        let (mut open, mut rest) = (Vec::new(), xml);
        while let Some(start) = rest.find('<') {
            assert!(!rest[..start].contains('>'), "a stray > before {:.60}", &rest[start..]);
            let end = start + rest[start..].find('>').expect("a tag ends");
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert_eq!(open, Vec::<&str>::new());
        for part in xml.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|entity| part.starts_with(entity)), "{part:.20}");
        }
        assert!(!xml.contains("NaN") && !xml.contains("inf"), "a coordinate is no number");
    }

    fn results() -> Results {
        let mut results = Results::default();
        let size = Size { sockets: 10_000, pods: 1 };
        results.figures.push(size.figure("idle", "memory per socket", "KB", 12.0, Some(1.6)));
        results.figures.push(size.figure("storm", "refused", "", 0.0, Some(0.0)));
        results.figures.push(size.figure("burst", "deliveries", "million/s", 1.5, Some(1.9)));
        results.figures.push(size.figure("fan-out", "CPU per delivery", "us", f64::NAN, None));
        for (pods, sockets) in [(1, 1000), (1, 19_000), (2, 1000), (2, 19_000)] {
            let size = Size { sockets, pods };
            results.figures.push(size.figure("growth", "CPU per delivery", "us", 5.0, (pods == 1).then_some(4.0)));
        }
        for server in ["floor", "gateway"] {
            let points = vec![(1.0, 0.5), (50.0, 1.0), (99.0, 20.0), (99.99, 20.0)];
            results.curves.push(Curve { scenario: "spread", server, points });
        }
        results
    }

    #[test]
    fn the_picture_is_well_formed_and_shows_every_section() {
        let svg = svg(&setting(), &results());
        assert_well_formed(&svg);
        for shown in ["memory per socket", "spread", "2 pods", "A &amp; B &lt;fast&gt;"] {
            assert!(svg.contains(shown), "{shown}");
        }
    }

    #[test]
    fn a_run_without_figures_makes_an_empty_picture_and_no_fault() {
        assert_well_formed(&svg(&setting(), &Results::default()));
    }

    #[test]
    fn figures_that_are_no_numbers_do_not_spoil_the_picture() {
        let mut results = results();
        results.figures.iter_mut().for_each(|figure| figure.value = f64::NAN);
        results.curves.iter_mut().for_each(|curve| curve.points.iter_mut().for_each(|point| point.1 = 0.0));
        assert_well_formed(&svg(&setting(), &results));
    }
}
