//! Draws a plan. Not everything happens in every run: each seed leaves out some kinds of faults, so that those which are left
//! meet each other more often. Some seeds have a [theme](super::themes) in its place.

use super::{Action, Person, Plan, Publisher, Rate, Rates, Settings, Step, Topic, Who, themes::Theme};
use crate::draw::Draw;

/// Everybody has come by then, in milliseconds.
pub(super) const SETTLED_IN: u64 = 1500;
/// Chats of one agent.
const CHATS: u64 = 3;

/// What the rest is drawn with.
struct Drawing {
    draw: Draw,
    slots: u64,
    people: Vec<Person>,
    topics: Vec<Topic>,
    faults_end: u64,
    may: Vec<Kind>,
}

/// Kinds of steps that a seed may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    GiveUp,
    Leave,
    Select,
    Stall,
    Burst,
    Kill,
    Drain,
    Freeze,
    StoreAway,
    StoreCut,
    Lost,
    Evict,
    Interrupt,
    StreamAway,
    Links,
    Isolate,
}

const CLIENTS: [Kind; 6] = [Kind::Connect, Kind::GiveUp, Kind::Leave, Kind::Select, Kind::Stall, Kind::Burst];
const FAULTS: [Kind; 11] = [
    Kind::Kill,
    Kind::Drain,
    Kind::Freeze,
    Kind::StoreAway,
    Kind::StoreCut,
    Kind::Lost,
    Kind::Evict,
    Kind::Interrupt,
    Kind::StreamAway,
    Kind::Links,
    Kind::Isolate,
];

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut draw = Draw::of(&[seed, 1]);
        let slots = draw.pick(&[2, 2, 3, 3, 3, 4, 5]);
        let settings = Settings::draw(&mut draw);
        let people = people(&mut draw);
        let topics = topics(&people);
        let publishers = topics.iter().map(|topic| Publisher { topic: *topic, every: draw.magnitude(150, 2400) }).collect();
        let is_calm = draw.chance(0.08);
        let rates = if is_calm { Rates::default() } else { rates(&mut draw) };
        let faults_end = draw.between(12_000, 30_000);
        let mut may: Vec<Kind> = CLIENTS.into_iter().filter(|_| draw.chance(0.75)).collect();
        may.extend(FAULTS.into_iter().filter(|_| !is_calm && draw.chance(0.4)));
        may.push(Kind::Connect);
        let steps = draw.between(6, 36);
        let one_by_one = draw.chance(0.4);
        let mut drawing = Drawing { draw, slots: slots as u64, people, topics, faults_end, may };
        let steps = drawing.steps(steps);
        let plan = Self { seed, slots, settings, rates, people: drawing.people, publishers, steps, faults_end, one_by_one };
        match Theme::of(seed) {
            Some(theme) => theme.shape(plan),
            None => plan,
        }
    }
}

fn people(draw: &mut Draw) -> Vec<Person> {
    let (companies, agents) = (draw.between(1, 2), draw.between(1, 2));
    let number = |n: u64| u8::try_from(n).unwrap_or_default();
    let person = |(n, draw): (u64, &mut Draw)| {
        let company = number(draw.below(companies));
        let who = if draw.chance(0.15) {
            Who::Admin { admin: number(n), company: draw.chance(0.5).then_some(company) }
        } else {
            Who::User { company, agent: number(draw.below(agents)), user: number(n) }
        };
        Person { who, pipe: draw.pick(&[1024, 16 * 1024]) }
    };
    (0..draw.between(3, 9)).map(|n| person((n, draw))).collect()
}

/// What somebody can see, and something that nobody can.
fn topics(people: &[Person]) -> Vec<Topic> {
    let mut topics = vec![Topic::Chats { company: 7, agent: 7 }];
    for person in people {
        let theirs = match person.who {
            Who::User { company, agent, .. } => {
                let mut theirs = vec![Topic::Chats { company, agent }];
                theirs.extend((0..CHATS).map(|chat| Topic::Messages { company, agent, chat: u8::try_from(chat).unwrap_or(0) }));
                theirs
            }
            Who::Admin { company, .. } => vec![Topic::Agents { company: company.unwrap_or(0), agent: 0 }],
        };
        topics.extend(theirs);
    }
    topics.sort_unstable();
    topics.dedup();
    topics
}

fn rates(draw: &mut Draw) -> Rates {
    let mut rate = || {
        // Half of the ports of half of the seeds are sound.
        if draw.chance(0.6) {
            return Rate::default();
        }
        // In thousandths, so that they are the same once written down and read.
        let mut share = |most: f64| if draw.chance(0.5) { (draw.unit() * most * 1000.0).round() / 1000.0 } else { 0.0 };
        let mut rate = Rate { delayed: share(0.5), delay: 0, refused: share(0.1), unanswered: share(0.08), doubled: share(0.2) };
        rate.delay = draw.magnitude(2, 300);
        rate
    };
    Rates { locks: rate(), routes: rate(), kills: rate(), source: rate(), peers: rate() }
}

impl Drawing {
    fn steps(&mut self, count: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        for person in 0..self.people.len() {
            if self.draw.chance(0.9) {
                let slot = self.slot();
                steps.push(Step { at: self.draw.between(0, SETTLED_IN), action: Action::Connect { person, slot } });
            }
        }
        for _ in 0..count {
            let at = self.draw.between(SETTLED_IN, self.faults_end - 500);
            let kind = self.draw.pick(&self.may.clone());
            let action = self.action(kind, at);
            steps.push(Step { at, action });
            if kind == Kind::Connect && self.draw.chance(0.3) {
                // Two at once for one session.
                let (action, later) = (self.action(kind, at), self.draw.magnitude(1, 100));
                let Some(Step { action: Action::Connect { person, .. }, .. }) = steps.last() else { continue };
                let person = *person;
                if let Action::Connect { slot, .. } = action {
                    steps.push(Step { at: at + later, action: Action::Connect { person, slot } });
                }
            }
        }
        steps.sort_by_key(|step| step.at);
        steps
    }

    fn slot(&mut self) -> usize {
        usize::try_from(self.draw.below(self.slots)).unwrap_or_default()
    }

    fn two_slots(&mut self) -> (usize, usize) {
        let a = self.slot();
        let step = usize::try_from(self.draw.between(1, self.slots - 1)).unwrap_or(1);
        (a, (a + step) % usize::try_from(self.slots).unwrap_or(1))
    }

    fn person(&mut self) -> usize {
        usize::try_from(self.draw.below(self.people.len() as u64)).unwrap_or_default()
    }

    fn topic(&mut self) -> Topic {
        self.draw.pick(&self.topics.clone())
    }

    /// How long something is broken: no longer than faults are on.
    fn time(&mut self, at: u64, most: u64) -> u64 {
        self.draw.magnitude(100, most).min(self.faults_end.saturating_sub(at))
    }

    fn action(&mut self, kind: Kind, at: u64) -> Action {
        let (person, slot) = (self.person(), self.slot());
        match kind {
            Kind::Connect => Action::Connect { person, slot },
            Kind::GiveUp => Action::GiveUp { person, slot, after: self.draw.magnitude(1, 1000) },
            Kind::Leave => Action::Leave { person, politely: self.draw.chance(0.5) },
            Kind::Select => Action::Select { person, chat: u8::try_from(self.draw.below(CHATS)).unwrap_or(0) },
            Kind::Stall => Action::Stall { person, for_ms: self.time(at, 20_000) },
            Kind::Burst => Action::Burst { topic: self.topic(), events: self.draw.magnitude(5, 120) },
            Kind::Kill => Action::Kill { slot, down_ms: self.time(at, 15_000), renamed: self.draw.chance(0.4) },
            Kind::Drain => Action::Drain { slot, down_ms: self.time(at, 5000), renamed: self.draw.chance(0.4) },
            Kind::Freeze => Action::Freeze { slot, for_ms: self.time(at, 25_000) },
            Kind::StoreAway if self.draw.chance(0.5) => Action::StoreDown { for_ms: self.time(at, 15_000) },
            Kind::StoreAway => Action::StoreFrozen { for_ms: self.time(at, 10_000) },
            Kind::StoreCut => Action::StoreCut { slot, for_ms: self.time(at, 20_000) },
            Kind::Lost if self.draw.chance(0.5) => Action::Flush,
            Kind::Lost => Action::GoBack { by: self.draw.magnitude(200, 8000) },
            Kind::Evict => Action::Evict { topic: self.topic() },
            Kind::Interrupt => Action::Interrupt,
            Kind::StreamAway if self.draw.chance(0.5) => Action::StreamDown { for_ms: self.time(at, 5000) },
            Kind::StreamAway => Action::StreamCut { slot, for_ms: self.time(at, 10_000) },
            Kind::Links => self.links(at),
            Kind::Isolate => Action::Isolate { slot, for_ms: self.time(at, 15_000) },
        }
    }

    fn links(&mut self, at: u64) -> Action {
        let (a, b) = self.two_slots();
        let for_ms = self.time(at, 15_000);
        match self.draw.below(3) {
            0 => Action::LinkCut { a, b, for_ms },
            1 => Action::LinkHalfOpen { a, b, for_ms },
            _ => Action::LinksSlow { delay: self.draw.magnitude(5, 400), for_ms },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_survives_being_written_down() {
        for seed in 0..200 {
            let plan = Plan::of(seed);
            assert_eq!(plan, Plan::of(seed));
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        }
    }

    #[test]
    fn every_action_is_in_some_plan_and_all_faults_end_in_time() {
        let plans: Vec<Plan> = (0..300).map(Plan::of).collect();
        let names: std::collections::BTreeSet<&str> =
            plans.iter().flat_map(|plan| &plan.steps).map(|step| step.action.name()).collect();
        assert_eq!(names.len(), 22, "{names:?}");
        for plan in &plans {
            assert!(plan.steps.is_sorted_by_key(|step| step.at));
            for step in &plan.steps {
                let text = serde_json::to_value(&step.action).unwrap();
                let body = text.as_object().and_then(|action| action.values().next());
                let takes = body.and_then(|body| body.get("for_ms").or(body.get("down_ms"))).and_then(serde_json::Value::as_u64);
                assert!(step.at + takes.unwrap_or(0) <= plan.faults_end, "{step:?}");
            }
        }
        assert!(plans.iter().any(Plan::is_calm) && plans.iter().filter(|plan| plan.is_calm()).count() < 60);
    }
}
