//! Cuts a plan that breaks an invariant as small as it gets while it still breaks that one.

use crate::plan::{Action, Plan, Rate, Step};

/// A shrunk plan, and how many runs that took.
#[derive(Debug)]
pub struct Shrunk {
    /// What is left.
    pub plan: Plan,
    /// Plans that were tried.
    pub tried: u64,
}

/// Shrinks a plan; `still_breaks` runs one. No more than `patience` plans are tried.
pub fn shrink(plan: &Plan, patience: u64, still_breaks: &mut dyn FnMut(&Plan) -> bool) -> Shrunk {
    let mut shrinking = Shrinking { best: plan.clone(), tried: 0, patience, still_breaks };
    loop {
        let before = shrinking.best.clone();
        shrinking.steps();
        shrinking.rates();
        shrinking.publishers();
        shrinking.times();
        if shrinking.best == before || shrinking.is_over() {
            return Shrunk { plan: shrinking.best, tried: shrinking.tried };
        }
    }
}

struct Shrinking<'a> {
    best: Plan,
    tried: u64,
    patience: u64,
    still_breaks: &'a mut dyn FnMut(&Plan) -> bool,
}

impl Shrinking<'_> {
    fn is_over(&self) -> bool {
        self.tried >= self.patience
    }

    /// Takes a plan in place of the best one if it still breaks.
    fn try_instead(&mut self, plan: Plan) -> bool {
        if plan == self.best || self.is_over() {
            return false;
        }
        self.tried += 1;
        let breaks = (self.still_breaks)(&plan);
        if breaks {
            self.best = plan;
        }
        breaks
    }

    /// Takes steps out, many at a time as long as that works (delta debugging).
    fn steps(&mut self) {
        let mut at_once = self.best.steps.len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            while from < self.best.steps.len() {
                let mut plan = self.best.clone();
                plan.steps.drain(from..(from + at_once).min(plan.steps.len()));
                if !self.try_instead(plan) {
                    from += at_once;
                }
            }
            if at_once == 1 {
                return;
            }
            at_once = at_once.div_ceil(2);
        }
    }

    /// Has ports be sound, wholly or in one respect.
    fn rates(&mut self) {
        for port in 0..5 {
            for cut in CUTS {
                let mut plan = self.best.clone();
                let rates = &mut plan.rates;
                let all = [&mut rates.locks, &mut rates.routes, &mut rates.kills, &mut rates.source, &mut rates.peers];
                if let Some(rate) = all.into_iter().nth(port) {
                    cut(rate);
                }
                self.try_instead(plan);
            }
        }
    }

    fn publishers(&mut self) {
        let mut place = 0;
        while place < self.best.publishers.len() {
            let mut plan = self.best.clone();
            plan.publishers.remove(place);
            if !self.try_instead(plan) {
                place += 1;
            }
        }
    }

    /// Shortens what takes time.
    fn times(&mut self) {
        for place in 0..self.best.steps.len() {
            loop {
                let mut plan = self.best.clone();
                if !halve(&mut plan.steps[place]) || !self.try_instead(plan) {
                    break;
                }
            }
        }
    }
}

const CUTS: [fn(&mut Rate); 5] = [
    |rate| *rate = Rate::default(),
    |rate| rate.delayed = 0.0,
    |rate| rate.refused = 0.0,
    |rate| rate.unanswered = 0.0,
    |rate| rate.doubled = 0.0,
];

/// Halves the time that a step takes, or the events that it publishes. False if there is nothing left to halve.
fn halve(step: &mut Step) -> bool {
    let (number, least) = match &mut step.action {
        Action::Burst { events, .. } => (events, 1),
        Action::Kill { down_ms, .. } | Action::Drain { down_ms, .. } => (down_ms, 100),
        Action::GoBack { by } => (by, 1000),
        Action::Stall { for_ms, .. }
        | Action::Freeze { for_ms, .. }
        | Action::StoreDown { for_ms }
        | Action::StoreFrozen { for_ms }
        | Action::StoreCut { for_ms, .. }
        | Action::StreamDown { for_ms }
        | Action::StreamCut { for_ms, .. }
        | Action::LinkCut { for_ms, .. }
        | Action::LinkHalfOpen { for_ms, .. }
        | Action::Isolate { for_ms, .. }
        | Action::LinksSlow { for_ms, .. } => (for_ms, 100),
        _ => return false,
    };
    let half = *number / 2;
    let shorter = half >= least;
    if shorter {
        *number = half;
    }
    shorter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_goes_and_what_is_needed_stays() {
        let plan = (0..).map(Plan::of).find(|plan| plan.steps.len() > 30 && !plan.rates.peers.is_zero()).unwrap();
        let needed = [plan.steps[3].clone(), plan.steps[17].clone()];
        let kept = |plan: &Plan| needed.iter().all(|step| plan.steps.iter().any(|kept| kept.at == step.at));
        let shrunk = shrink(&plan, 10_000, &mut |plan| kept(plan) && plan.rates.peers.delay > 0);
        assert!(kept(&shrunk.plan) && shrunk.plan.steps.len() <= 4, "{:?}", shrunk.plan.steps);
        assert!(shrunk.plan.publishers.is_empty() && shrunk.plan.rates.locks == Rate::default());
        assert!(shrunk.tried < 500, "{}", shrunk.tried);
    }

    #[test]
    fn shrinking_ends_when_patience_does() {
        let plan = Plan::of(3);
        assert_eq!(shrink(&plan, 5, &mut |_| true).tried, 5);
    }
}
