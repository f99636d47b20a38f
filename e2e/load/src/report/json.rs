//! The figures for programs: each with its unit, its budget and how it stands to it.

use anyhow::Result;
use serde::Serialize;

use super::{
    Curve, Figure, Results,
    budget::{self, Limit, Verdict},
    setting::Setting,
};

#[derive(Serialize)]
struct Document<'a> {
    setting: &'a Setting,
    figures: Vec<Judged<'a>>,
    curves: &'a [Curve],
    notes: &'a [String],
    /// The share of all cores that other programs used meanwhile.
    others: f64,
}

#[derive(Serialize)]
struct Judged<'a> {
    #[serde(flatten)]
    figure: &'a Figure,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<Bound>,
}

#[derive(Serialize)]
struct Bound {
    /// `at_most` or `at_least`.
    kind: &'static str,
    /// In the figure's unit; none if it goes by a floor that was not measured.
    bound: Option<f64>,
    /// As a multiple of the floor, if that is how it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    times_floor: Option<f64>,
    kept: Option<bool>,
}

/// The document.
///
/// # Errors
/// Never; all of it is plain data.
pub(crate) fn text(setting: &Setting, results: &Results) -> Result<String> {
    let figures =
        results.figures.iter().map(|figure| Judged { figure, budget: budget::of(figure).map(|limit| bound(figure, limit)) });
    let document =
        Document { setting, figures: figures.collect(), curves: &results.curves, notes: &results.notes, others: results.others };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn bound(figure: &Figure, limit: Limit) -> Bound {
    Bound {
        kind: if matches!(limit, Limit::AtLeast(_)) { "at_least" } else { "at_most" },
        bound: budget::bound(limit, figure.floor),
        times_floor: if let Limit::TimesFloor(times) = limit { Some(times) } else { None },
        kept: match budget::verdict(figure) {
            Verdict::Kept => Some(true),
            Verdict::Missed => Some(false),
            Verdict::Open => None,
        },
    }
}
