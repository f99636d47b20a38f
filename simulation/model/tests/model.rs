//! The model is checked in small worlds, and each broken rule is found out in one.

use clap::ValueEnum as _;
use daisi_ws_lock_model::{
    model::{LockModel, Policy},
    mutant::Mutant,
    properties::{ALONE, ELDERS, FENCE, NO_GHOST},
    report::check,
};

#[track_caller]
fn all_properties_hold(policy: Policy, sockets: u8, faults: u8) {
    let checked = check(LockModel { policy, sockets, faults, mutant: None }, 2);
    let unmet: Vec<_> = checked.verdicts.iter().filter(|verdict| !verdict.is_met).collect();
    assert!(unmet.is_empty(), "{unmet:?}\n{:?}", checked.counterexample);
}

#[test]
fn three_sockets_without_a_fault_are_as_they_should_be_in_every_state() {
    all_properties_hold(Policy::Strict, 3, 0);
    all_properties_hold(Policy::Available, 3, 0);
}

#[test]
fn two_sockets_and_two_faults_with_policy_strict_are_as_they_should_be_in_every_state() {
    all_properties_hold(Policy::Strict, 2, 1);
    all_properties_hold(Policy::Strict, 2, 2);
}

#[test]
fn two_sockets_and_two_faults_with_policy_available_are_as_they_should_be_in_every_state() {
    all_properties_hold(Policy::Available, 2, 1);
    all_properties_hold(Policy::Available, 2, 2);
}

/// A broken rule, how many sockets and faults it takes to find that out, and the property that breaks.
type Found = (Mutant, u8, u8, &'static str);

const WITHOUT_A_FAULT: [Found; 6] = [
    (Mutant::NoCompareAndSet, 3, 0, FENCE),
    (Mutant::ReleaseWithoutCompare, 2, 0, FENCE),
    (Mutant::RenewalWithoutCompare, 2, 0, FENCE),
    (Mutant::KillWithoutVictim, 3, 0, ELDERS),
    (Mutant::NoPendingEntry, 2, 0, ALONE),
    (Mutant::NeverYields, 2, 0, ELDERS),
];

const WITH_FAULTS: [Found; 11] = [
    (Mutant::NoDeadlineFence, 2, 1, FENCE),
    (Mutant::NoDeadlines, 2, 1, FENCE),
    (Mutant::ConfirmedFromAnswer, 2, 1, FENCE),
    (Mutant::AlwaysYields, 2, 1, ELDERS),
    (Mutant::NoPredecessors, 2, 2, ELDERS),
    (Mutant::NoLastResort, 2, 1, ELDERS),
    (Mutant::LateClaimIsKept, 2, 1, NO_GHOST),
    (Mutant::NoReleaseAfterRenewal, 2, 1, NO_GHOST),
    (Mutant::UnansweredIsForgotten, 2, 1, NO_GHOST),
    (Mutant::UnansweredNeedsCompany, 2, 1, NO_GHOST),
    (Mutant::TakeBackIsGivenBack, 2, 2, FENCE),
];

#[track_caller]
fn are_found_out(mutants: &[Found]) {
    for &(mutant, sockets, faults, property) in mutants {
        let model = LockModel { policy: Policy::Strict, sockets, faults, mutant: Some(mutant) };
        let found = check(model, 1).counterexample.map(|(property, _)| property);
        assert_eq!(found, Some(property), "{mutant:?}");
    }
}

#[test]
fn a_broken_rule_that_needs_no_fault_is_found_out() {
    are_found_out(&WITHOUT_A_FAULT);
}

#[test]
fn a_broken_rule_that_needs_faults_is_found_out() {
    are_found_out(&WITH_FAULTS);
}

#[test]
fn every_broken_rule_is_looked_for() {
    let looked_for: Vec<Mutant> = WITHOUT_A_FAULT.iter().chain(&WITH_FAULTS).map(|(mutant, ..)| *mutant).collect();
    for mutant in Mutant::value_variants() {
        assert!(looked_for.contains(mutant), "{mutant:?}");
    }
}
