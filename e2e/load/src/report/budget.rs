//! What each figure may be. The budgets are for 10,000 sockets on one pod, where nothing else is said.

use super::Figure;

/// The bound of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// No more than the floor's, so many times.
    TimesFloor(f64),
}

/// A figure that has a bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) scenario: &'static str,
    pub(crate) name: &'static str,
    pub(crate) limit: Limit,
}

use Limit::{AtLeast, AtMost, TimesFloor};

const fn budget(scenario: &'static str, name: &'static str, limit: Limit) -> Budget {
    Budget { scenario, name, limit }
}

/// All budgets. Units are those of the figures.
pub(crate) const BUDGETS: &[Budget] = &[
    budget("connect", "pod CPU per connect", AtMost(80.0)),
    budget("connect", "Redis CPU per connect", AtMost(20.0)),
    budget("idle", "memory per socket", AtMost(3.0)),
    budget("idle", "memory per socket at the end", AtMost(3.0)),
    budget("idle", "CPU", AtMost(2.0)),
    budget("fan-out", "CPU per delivery", TimesFloor(1.10)),
    budget("fan-out", "user CPU per delivery", AtMost(1.2)),
    budget("burst", "deliveries", AtLeast(1.2)),
    budget("burst", "CPU per delivery", AtMost(0.8)),
    budget("spread", "CPU per event", TimesFloor(1.6)),
    budget("spread", "latency p99", TimesFloor(1.5)),
    budget("forwarded", "latency p95 added by forwarding", AtMost(2.0)),
    budget("forwarded", "CPU per event, all pods", TimesFloor(2.5)),
    budget("storm", "time until all are ready", AtMost(1.2)),
    budget("storm", "pod CPU per connect", AtMost(130.0)),
    budget("storm", "p99 from connect to ready", AtMost(300.0)),
    budget("storm", "refused", AtMost(0.0)),
    budget("storm-resume", "p99 from connect to ready, times that without resume", AtMost(2.0)),
    budget("storm-resume", "refused", AtMost(0.0)),
    budget("storm-resume", "refused, without resume", AtMost(0.0)),
    budget("storm-resume", "not resumed", AtMost(0.0)),
    budget("storm-resume-shared", "p99 from connect to ready, times that without resume", AtMost(2.0)),
    budget("storm-resume-shared", "refused", AtMost(0.0)),
    budget("storm-resume-shared", "refused, without resume", AtMost(0.0)),
    budget("storm-resume-shared", "not resumed", AtMost(0.0)),
    budget("take-over", "p99 from connect to ready", AtMost(10.0)),
    budget("growth", "connect: most to least", AtMost(1.10)),
    budget("growth", "idle: most to least", AtMost(1.10)),
    budget("growth", "connect, times floor: most to least", AtMost(1.10)),
    budget("growth", "fan-out, times floor: most to least", AtMost(1.10)),
];

/// How a figure stands to its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It keeps it.
    Kept,
    /// It misses it.
    Missed,
    /// There is none, or the floor that it goes by was not measured.
    Open,
}

/// The budget of a figure.
pub(crate) fn of(figure: &Figure) -> Option<Limit> {
    let found = BUDGETS.iter().find(|budget| budget.scenario == figure.scenario && budget.name == figure.name);
    found.map(|budget| budget.limit)
}

/// The bound as a number in the figure's unit; none if it goes by a floor that was not measured.
pub(crate) fn bound(limit: Limit, floor: Option<f64>) -> Option<f64> {
    match limit {
        AtMost(bound) | AtLeast(bound) => Some(bound),
        TimesFloor(times) => floor.map(|floor| floor * times),
    }
}

/// Does the figure keep its budget? A value that is no number does not.
pub(crate) fn verdict(figure: &Figure) -> Verdict {
    match of(figure).and_then(|limit| keeps(limit, figure.value, figure.floor)) {
        Some(true) => Verdict::Kept,
        Some(false) => Verdict::Missed,
        None => Verdict::Open,
    }
}

/// The same of a value; nothing if the floor that it goes by was not measured.
pub(crate) fn keeps(limit: Limit, value: f64, floor: Option<f64>) -> Option<bool> {
    let bound = bound(limit, floor)?;
    Some(match limit {
        AtMost(_) | TimesFloor(_) => value <= bound,
        AtLeast(_) => value >= bound,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Size;

    fn figure(scenario: &'static str, name: &'static str, value: f64, floor: Option<f64>) -> Figure {
        Size { sockets: 10_000, pods: 1 }.figure(scenario, name, "", value, floor)
    }

    #[test]
    fn a_figure_at_its_bound_keeps_its_budget_and_one_beyond_misses_it() {
        assert_eq!(verdict(&figure("idle", "memory per socket", 3.0, None)), Verdict::Kept);
        assert_eq!(verdict(&figure("idle", "memory per socket", 3.01, None)), Verdict::Missed);
        assert_eq!(verdict(&figure("burst", "deliveries", 1.2, None)), Verdict::Kept);
        assert_eq!(verdict(&figure("burst", "deliveries", 1.19, None)), Verdict::Missed);
    }

    #[test]
    fn a_budget_by_the_floor_goes_by_the_floor_of_the_same_figure() {
        assert_eq!(verdict(&figure("fan-out", "CPU per delivery", 2.19, Some(2.0))), Verdict::Kept);
        assert_eq!(verdict(&figure("fan-out", "CPU per delivery", 2.21, Some(2.0))), Verdict::Missed);
        assert_eq!(verdict(&figure("fan-out", "CPU per delivery", 2.0, None)), Verdict::Open);
    }

    #[test]
    fn a_figure_without_a_budget_is_left_open_and_no_number_is_a_miss() {
        assert_eq!(verdict(&figure("idle", "something else", 1.0, None)), Verdict::Open);
        assert_eq!(verdict(&figure("idle", "CPU", f64::NAN, None)), Verdict::Missed);
    }

    #[test]
    fn no_figure_has_two_budgets() {
        for (nth, budget) in BUDGETS.iter().enumerate() {
            let twins =
                BUDGETS.iter().skip(nth + 1).filter(|other| (other.scenario, other.name) == (budget.scenario, budget.name));
            assert_eq!(twins.count(), 0, "{budget:?}");
        }
    }
}
