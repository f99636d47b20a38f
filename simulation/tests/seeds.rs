//! Runs of the fleet: some seeds, the same seed twice, and the plans that once broke something.

#![expect(clippy::unwrap_used, reason = "in a test that is how it fails")]

use std::path::Path;

use daisi_ws_simulation::{
    plan::{Action, Plan, Rates, Step},
    run::{Outcome, prepare, run},
    trace::first_difference,
};

fn sound(plan: &Plan) -> Outcome {
    let outcome = run(plan, false).unwrap();
    assert_eq!(outcome.breaches, [], "seed {}", plan.seed);
    outcome
}

fn sound_seeds(seeds: std::ops::Range<u64>) {
    prepare();
    seeds.for_each(|seed| drop(sound(&Plan::of(seed))));
}

#[test]
fn the_first_seeds_break_nothing() {
    sound_seeds(0..7);
}

#[test]
fn the_next_seeds_break_nothing() {
    sound_seeds(7..14);
}

#[test]
fn the_seeds_after_those_break_nothing() {
    sound_seeds(14..21);
}

#[test]
fn a_seed_gives_the_same_run_again_whatever_ran_before_and_another_seed_another() {
    prepare();
    let plan = Plan::of(2);
    let first = run(&plan, true).unwrap();
    let other = run(&Plan::of(3), false).unwrap();
    let again = run(&plan, true).unwrap();
    assert_eq!(first_difference(&first.text, &again.text), None);
    assert_eq!((first.hash, first.lines), (again.hash, again.lines));
    assert_ne!(first.hash, other.hash);
    let elsewhere = std::thread::spawn(move || run(&plan, false).unwrap().hash).join().unwrap();
    assert_eq!(first.hash, elsewhere, "on another thread");
}

#[test]
fn much_happens_in_a_few_seeds() {
    prepare();
    let mut sum = daisi_ws_simulation::report::Summary::default();
    (100..112).for_each(|seed| sum.add(&sound(&Plan::of(seed))));
    for what in [
        "admitted",
        "events forwarded",
        "redeliveries",
        "gaps",
        "refused: store",
        "refused: draining",
        "sockets closed: 4402",
        "sockets closed: 1001",
        "sockets broken",
        "retirements",
        "retries",
        "events abandoned",
        "resumed",
        "deliveries of what was read again",
        "chats selected",
    ] {
        assert!(sum.counts.get(what).is_some_and(|times| *times > 0), "{what} never happened:\n{sum}");
    }
}

#[test]
fn what_once_broke_something_breaks_nothing_any_more() {
    prepare();
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut files: Vec<_> = std::fs::read_dir(plans).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let plan: Plan = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let outcome = run(&plan, false).unwrap();
        assert_eq!(outcome.breaches, [], "{}", file.display());
    }
}

#[test]
fn a_picture_shows_each_slot_each_person_and_what_is_wrong() {
    prepare();
    let plan = Plan::of(5);
    let mut outcome = sound(&plan);
    outcome.breaches.push(daisi_ws_simulation::invariants::Breach {
        invariant: "made up",
        at: outcome.took,
        what: "a < b".to_owned(),
    });
    let picture = daisi_ws_simulation::report::picture(&plan, &outcome);
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    for slot in 0..plan.slots {
        assert!(picture.contains(&format!(">slot {slot}<")));
    }
    assert!(picture.contains(&format!(">person {}<", plan.people.len() - 1)) && picture.contains("made up: a &lt; b"));
}

/// A fleet of two, one session on each, and one event a while, in which nothing breaks but what `steps` say.
fn small(seed: u64, steps: Vec<Step>) -> Plan {
    let mut plan = (seed..).map(Plan::of).find(|plan| plan.slots == 2).unwrap();
    plan.rates = Rates::default();
    plan.steps.retain(|step| matches!(step.action, Action::Connect { .. }) && step.at < 1500);
    plan.steps.extend(steps);
    plan
}

#[test]
fn a_fleet_that_nothing_befalls_is_sound_and_calm() {
    prepare();
    let plan = small(1, Vec::new());
    assert!(plan.is_calm());
    let outcome = sound(&plan);
    assert!(outcome.counts["received"] > 100 && !outcome.counts.contains_key("gaps"), "{:?}", outcome.counts);
}
