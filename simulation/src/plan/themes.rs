//! Races that chance alone seldom reaches: every sixteenth seed is about one of them, and leaves out the rest.

use super::{Action, Plan, Rate, Rates, Step, Topic, Who};
use crate::draw::Draw;

/// Of so many seeds, the last has a theme.
const EVERY: u64 = 16;
/// Calls that take longer, half of them, and do not fail.
const SLOW: Rate = Rate { delayed: 0.5, delay: 300, refused: 0.0, unanswered: 0.0, doubled: 0.0 };
/// Calls that take longer, are lost on their way there or back, or come twice.
const ASTRAY: Rate = Rate { delayed: 0.3, delay: 200, refused: 0.1, unanswered: 0.1, doubled: 0.1 };
/// People come and go until then, in milliseconds.
const FIGHTS_END: u64 = 25_000;

/// What a seed is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// Tabs fight for sessions, and end just when their locks are taken or renewed: answers of the store are slow.
    Fight,
    /// A pod stands still until it is taken for dead, and thaws while events come for its sessions.
    Thaw,
    /// Pods drain one after another, or at once, while calls between them are slow, go astray or come twice: who is asked to move does.
    Rollout,
}

impl Theme {
    /// That of a seed, if it has one.
    pub(super) fn of(seed: u64) -> Option<Self> {
        let is_one = seed % EVERY == EVERY - 1;
        is_one.then_some(match seed / EVERY % 3 {
            0 => Self::Fight,
            1 => Self::Thaw,
            _ => Self::Rollout,
        })
    }

    /// The plan, with this in place of what it had once everybody has come.
    pub(super) fn shape(self, mut plan: Plan) -> Plan {
        let mut draw = Draw::of(&[plan.seed, 4]);
        plan.steps.retain(|step| step.at <= super::from_seed::SETTLED_IN && matches!(step.action, Action::Connect { .. }));
        match self {
            Self::Fight => fight(&mut plan, &mut draw),
            Self::Thaw => thaw(&mut plan, &mut draw),
            Self::Rollout => rollout(&mut plan, &mut draw),
        }
        plan.steps.sort_by_key(|step| step.at);
        plan
    }
}

fn index(draw: &mut Draw, of: usize) -> usize {
    usize::try_from(draw.below(of as u64)).unwrap_or_default()
}

fn fight(plan: &mut Plan, draw: &mut Draw) {
    plan.rates = Rates { locks: SLOW, ..Rates::default() };
    plan.faults_end = FIGHTS_END;
    for _ in 0..draw.between(20, 40) {
        let (person, at) = (index(draw, plan.people.len()), draw.between(super::from_seed::SETTLED_IN, FIGHTS_END - 1000));
        let mut then = |at, action| plan.steps.push(Step { at, action });
        then(at, Action::Connect { person, slot: index(draw, plan.slots) });
        if draw.chance(0.6) {
            let later = at + draw.magnitude(1, 400);
            then(later, Action::Connect { person, slot: index(draw, plan.slots) });
        }
        if draw.chance(0.5) {
            let later = at + draw.magnitude(50, 10_000);
            then(later.min(FIGHTS_END), Action::Leave { person, politely: draw.chance(0.5) });
        }
    }
}

fn thaw(plan: &mut Plan, draw: &mut Draw) {
    let slow_links = draw.chance(0.5);
    plan.rates = Rates { peers: if slow_links { SLOW } else { Rate::default() }, ..Rates::default() };
    let slot = index(draw, plan.slots);
    // Its liveness key runs out, and it is probed in vain.
    let for_ms = plan.settings.pod_ttl * 1000 + draw.between(2000, 7000);
    let at = draw.between(super::from_seed::SETTLED_IN + 500, 6000);
    let thaws = at + for_ms;
    plan.faults_end = thaws + 6000;
    plan.steps.push(Step { at, action: Action::Freeze { slot, for_ms } });
    if !slow_links {
        let before = draw.between(100, 1000);
        plan.steps.push(Step { at: thaws - before, action: Action::Isolate { slot, for_ms: before + draw.between(200, 2500) } });
    }
    let topics: Vec<Topic> = plan.steps.iter().filter_map(|step| topic_at(plan, step, slot)).collect();
    let mut next = thaws.saturating_sub(100);
    while !topics.is_empty() && next < thaws + 4000 {
        plan.steps.push(Step { at: next, action: Action::Burst { topic: draw.pick(&topics), events: draw.between(1, 3) } });
        next += draw.between(20, 120);
    }
}

fn rollout(plan: &mut Plan, draw: &mut Draw) {
    let peers = if draw.chance(0.5) { ASTRAY } else { Rate::default() };
    let locks = if draw.chance(0.3) { SLOW } else { Rate::default() };
    plan.rates = Rates { peers, kills: peers, locks, ..Rates::default() };
    let mut at = super::from_seed::SETTLED_IN + draw.between(1000, 3000);
    for slot in 0..plan.slots {
        plan.steps.push(Step { at, action: Action::Drain { slot, down_ms: draw.between(200, 2000), renamed: draw.chance(0.5) } });
        // Some cross each other.
        at += draw.pick(&[0, 300, 3000, 9000]) + draw.between(0, 500);
    }
    plan.faults_end = at + 5000;
    // Somebody opens another tab while the first one moves.
    for _ in 0..draw.between(0, 6) {
        let person = index(draw, plan.people.len());
        let comes = draw.between(super::from_seed::SETTLED_IN, at);
        plan.steps.push(Step { at: comes, action: Action::Connect { person, slot: index(draw, plan.slots) } });
    }
}

/// What everybody hears whom this step lets connect at the pod.
fn topic_at(plan: &Plan, step: &Step, slot: usize) -> Option<Topic> {
    let Action::Connect { person, slot: at } = step.action else { return None };
    let topic = match plan.people[person].who {
        Who::User { company, agent, .. } => Topic::Chats { company, agent },
        Who::Admin { company, .. } => Topic::Agents { company: company.unwrap_or(0), agent: 0 },
    };
    (at == slot).then_some(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixteenth_seed_is_about_a_race_and_the_others_are_as_they_were_drawn() {
        let themes: Vec<Option<Theme>> = (0..96).map(Theme::of).collect();
        let of = |theme| (0..96).filter(|seed: &usize| themes[*seed] == Some(theme)).collect::<Vec<_>>();
        assert_eq!(of(Theme::Fight), [15, 63]);
        assert_eq!(of(Theme::Thaw), [31, 79]);
        assert_eq!(of(Theme::Rollout), [47, 95]);
    }

    #[test]
    fn all_pods_drain_in_a_rollout() {
        for seed in (47..2000).step_by(48) {
            let plan = Plan::of(seed);
            let drained: Vec<usize> = plan.steps.iter().filter_map(drained_at).collect();
            assert_eq!(drained, (0..plan.slots).collect::<Vec<_>>(), "seed {seed}");
        }
    }

    fn drained_at(step: &Step) -> Option<usize> {
        if let Action::Drain { slot, .. } = step.action { Some(slot) } else { None }
    }

    #[test]
    fn a_thaw_comes_after_the_pod_is_taken_for_dead_and_events_come_with_it() {
        for seed in (31..2000).step_by(48) {
            let plan = Plan::of(seed);
            let frozen = plan.steps.iter().find_map(|step| match step.action {
                Action::Freeze { slot, for_ms } => Some((slot, step.at, for_ms)),
                _ => None,
            });
            let (slot, at, for_ms) = frozen.unwrap();
            assert!(for_ms > plan.settings.pod_ttl * 1000 && at + for_ms < plan.faults_end);
            let comes = plan.steps.iter().filter(|step| matches!(step.action, Action::Burst { .. })).count();
            let has_sessions = plan.steps.iter().any(|step| topic_at(&plan, step, slot).is_some());
            assert_eq!(comes > 20, has_sessions, "seed {seed}: {comes}");
        }
    }
}
