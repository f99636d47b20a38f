//! Checks a model, and tells what came of it.

use std::{fmt::Write as _, time::Duration};

use stateright::{Checker as _, Expectation, HasDiscoveries, Model as _, Path};

use crate::{
    action::Action,
    model::{LockModel, Policy},
    mutant::Mutant,
    state::{Renewal, Socket, Stage, State, pods, sockets},
};

/// A property and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The property.
    pub name: &'static str,
    /// It has to hold in every state; otherwise, in some.
    pub is_always: bool,
    /// It is as it has to be.
    pub is_met: bool,
}

/// How a check went.
#[derive(Debug)]
pub struct Checked {
    /// All properties.
    pub verdicts: Vec<Verdict>,
    /// A shortest run that breaks a property, told step by step, with the property's name.
    pub counterexample: Option<(&'static str, String)>,
    /// Different states.
    pub states: usize,
    /// Steps from all of them.
    pub steps: usize,
    /// Steps to the state that is the farthest from the first.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
}

impl Checked {
    /// Are all properties as they have to be?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.is_met)
    }
}

/// Visits all states of a model, or of a mutant until a property breaks.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the time that a check takes is part of what is told")]
pub fn check(model: LockModel, threads: usize) -> Checked {
    let began = std::time::Instant::now();
    let finish = if model.mutant.is_some() { HasDiscoveries::AnyFailures } else { HasDiscoveries::All };
    let checker = model.checker().threads(threads).finish_when(finish).spawn_bfs().join();
    let found = checker.discoveries();
    let verdicts: Vec<Verdict> = model
        .properties()
        .iter()
        .map(|property| {
            let is_always = property.expectation == Expectation::Always;
            Verdict { name: property.name, is_always, is_met: found.contains_key(property.name) != is_always }
        })
        .collect();
    let broken = verdicts.iter().find(|verdict| verdict.is_always && !verdict.is_met);
    let counterexample =
        broken.and_then(|verdict| Some((verdict.name, story(&model, verdict.name, found.get(verdict.name)?.clone()))));
    Checked {
        counterexample,
        verdicts,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
    }
}

/// The worlds in which a mutant is looked for, the simplest first.
pub fn worlds(mutant: Mutant, most_faults: u8) -> impl Iterator<Item = LockModel> {
    let sizes = (0..=most_faults).flat_map(|faults| [2, 3].map(|sockets| (faults, sockets)));
    let of_size = |(faults, sockets)| [Policy::Strict, Policy::Available].map(|policy| (faults, sockets, policy));
    sizes.flat_map(of_size).map(move |(faults, sockets, policy)| LockModel { policy, sockets, faults, mutant: Some(mutant) })
}

/// The first world in which a mutant is found out, and how; `None` if it is in none.
#[must_use]
pub fn find(mutant: Mutant, most_faults: u8) -> Option<(LockModel, Checked)> {
    // One thread visits states in order of their distance: what it finds first is shortest.
    worlds(mutant, most_faults).map(|model| (model, check(model, 1))).find(|(_, checked)| checked.counterexample.is_some())
}

/// A run up to the state that breaks a property.
fn story(model: &LockModel, property: &'static str, path: Path<State, Action>) -> String {
    let mut story = String::new();
    let (mut step, condition) = (None, model.property(property).condition);
    for (number, (state, action)) in path.into_vec().into_iter().enumerate() {
        let _ = match step {
            None => writeln!(story, "{:>3}  {:66}  {}", number, "nobody is there", line(model, &state)),
            Some(step) => writeln!(story, "{number:>3}  {step:66}  {}", line(model, &state)),
        };
        step = action.map(|action| action.to_string());
        if !condition(model, &state) {
            break;
        }
    }
    story
}

/// A state in one line: the lock, each socket that has begun, what is on its way.
fn line(model: &LockModel, state: &State) -> String {
    let mut parts = Vec::new();
    parts.push(state.lock.map_or("lock: -".to_owned(), |lock| format!("lock: {} for {}", lock.owner, lock.left)));
    for socket in sockets().filter(|socket| state.socket(*socket).stage != Stage::Absent) {
        let it = state.socket(socket);
        let writes = if model.may_write(state, socket) { ", writes" } else { "" };
        parts.push(format!("{socket}@{}: {}{writes}", name(it.pod), stage(it)));
    }
    for pod in pods() {
        let it = state.pod(pod);
        let renewal = match it.renewal {
            Renewal::Idle => "",
            Renewal::Asked { .. } => "renews",
            Renewal::Disputed { .. } => "disputes",
            Renewal::TakingBack { .. } => "takes back",
        };
        let faults = [(it.is_frozen, "frozen"), (it.is_cut, "cut off"), (!it.late_renewal.is_empty(), "late renewal")];
        let words = faults.iter().filter(|(is, _)| *is).map(|(_, word)| *word).chain([renewal]).filter(|word| !word.is_empty());
        let words: Vec<&str> = words.collect();
        if !words.is_empty() {
            parts.push(format!("{}: {}", name(pod), words.join(", ")));
        }
    }
    let under_way = [("kills", state.kills), ("late kills", state.late_kills), ("releases", state.releases)];
    parts.extend(under_way.iter().filter(|(_, some)| !some.is_empty()).map(|(what, some)| format!("{what} {some:?}")));
    parts.join(" | ")
}

fn name(pod: u8) -> char {
    char::from(b'A' + pod)
}

fn stage(socket: &Socket) -> String {
    match socket.stage {
        Stage::Absent => String::new(),
        Stage::Connecting => "connecting".to_owned(),
        Stage::Open => format!("open, confirmed for {}", socket.confirmed),
        Stage::Ended(end) => format!("ended ({end:?})"),
    }
}
