//! Routes and membership: who serves what, who is there, and that a living pod is never taken out.

use std::time::Duration;

use daisi_ws_domain::{
    ids::PodId,
    peer::PodRecord,
    route::{RouteKey, Scope},
};
use daisi_ws_service::ports::{Announce, AnnounceError, Goodbye, MAX_PODS, PASSED_OVER, RouteChange, Standing};

use super::{
    fleet::{Fleet, LONG, Pod, SHORT, agent, chat, company, nobody, pod, record},
    on_both,
};
use crate::support::wait;

on_both! {
    a_confirmed_route_is_seen_by_every_pod,
    routes_are_sets_of_pods,
    who_asks_is_not_told_of_itself,
    every_kind_of_route_is_its_own,
    changes_apply_in_order,
    a_route_runs_out_unless_renewed,
    a_pod_that_was_retired_is_gone_and_taken_out_of_the_routes_named_with_it,
    a_pod_whose_liveness_key_is_back_keeps_its_routes,
    pods_are_told_apart_by_what_the_store_knows_of_them,
    a_pod_that_says_goodbye_is_told_from_one_that_falls_silent,
    a_live_record_of_another_process_is_not_overwritten,
    a_look_up_reads_no_more_pods_of_a_route_than_a_fleet_has,
    the_first_announcement_makes_the_epoch,
    a_later_announcement_keeps_the_epoch,
    a_look_up_carries_the_epoch,
    the_epoch_is_missing_after_a_flush_until_somebody_announces,
    announcing_again_finds_the_pod_present,
    announcing_after_expiry_says_that_the_pod_was_not_there,
    announcing_after_being_pruned_says_that_the_pod_was_not_there,
    a_pod_that_starts_again_was_not_there,
    a_pod_that_was_retired_by_others_finds_that_counted,
    a_pod_that_leaves_by_itself_is_not_counted_as_retired,
    a_pod_that_was_passed_over_finds_that_counted_and_stays_a_member,
    only_the_first_announcement_on_an_empty_store_makes_the_epoch,
    announcements_list_the_living_and_the_lapsed,
    a_retired_pod_is_no_member,
    retiring_spares_a_living_pod_when_asked_to,
    a_change_of_nothing_and_a_look_up_of_nothing_are_fine,
}

fn chats() -> RouteKey {
    RouteKey::Chats { company: company(), agent: agent() }
}

fn messages(id: &str) -> RouteKey {
    RouteKey::Messages { company: company(), agent: agent(), chat: chat(id) }
}

fn add(route: RouteKey, ttl: Duration) -> RouteChange {
    RouteChange::Add { route, ttl }
}

/// All pods on a route, the asker too.
async fn pods_on(asker: &Pod, route: RouteKey) -> Vec<PodId> {
    let mut pods = asker.routes.lookup(&nobody(), &[route]).await.unwrap().pods.remove(0);
    pods.sort();
    pods
}

async fn a_confirmed_route_is_seen_by_every_pod(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.routes.apply(&pod("a"), &[add(chats(), LONG)]).await.unwrap();
    assert_eq!(pods_on(&a, chats()).await, [pod("a")]);
    assert_eq!(pods_on(&b, chats()).await, [pod("a")]);
}

async fn routes_are_sets_of_pods(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.routes.apply(&pod("a"), &[add(messages("c1"), LONG)]).await.unwrap();
    b.routes.apply(&pod("b"), &[add(messages("c1"), LONG)]).await.unwrap();
    a.routes.apply(&pod("a"), &[add(messages("c1"), LONG)]).await.unwrap();
    assert_eq!(pods_on(&a, messages("c1")).await, [pod("a"), pod("b")]);
    a.routes.apply(&pod("a"), &[RouteChange::Remove { route: messages("c1") }]).await.unwrap();
    assert_eq!(pods_on(&a, messages("c1")).await, [pod("b")]);
}

async fn who_asks_is_not_told_of_itself(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.routes.apply(&pod("a"), &[add(chats(), LONG), add(messages("mine"), LONG)]).await.unwrap();
    b.routes.apply(&pod("b"), &[add(chats(), LONG), add(messages("theirs"), LONG)]).await.unwrap();
    let asked = [messages("mine"), chats(), messages("nobody's"), messages("theirs"), messages("mine")];
    let seen = a.routes.lookup(&pod("a"), &asked).await.unwrap().pods;
    assert_eq!(seen, [vec![], vec![pod("b")], vec![], vec![pod("b")], vec![]]);
}

async fn every_kind_of_route_is_its_own(fleet: Fleet) {
    let a = fleet.pod("a");
    let everything = RouteKey::Agents { company: Scope::Any, agent: Scope::Any };
    let all = [
        chats(),
        messages("c1"),
        messages("chats"),
        everything,
        RouteKey::Agents { company: Scope::Only(company()), agent: Scope::Any },
        RouteKey::Agents { company: Scope::Any, agent: Scope::Only(agent()) },
        RouteKey::Agents { company: Scope::Only(company()), agent: Scope::Only(agent()) },
    ];
    for (index, route) in all.iter().enumerate() {
        a.routes.apply(&pod(&format!("pod-{index}")), &[add(route.clone(), LONG)]).await.unwrap();
    }
    let seen = a.routes.lookup(&nobody(), &all).await.unwrap().pods;
    let expected: Vec<Vec<PodId>> = (0..all.len()).map(|index| vec![pod(&format!("pod-{index}"))]).collect();
    assert_eq!(seen, expected, "in the order asked");
}

async fn changes_apply_in_order(fleet: Fleet) {
    let a = fleet.pod("a");
    let remove = |route| RouteChange::Remove { route };
    let there_and_back = [add(chats(), LONG), remove(chats()), remove(messages("c1")), add(messages("c1"), LONG)];
    a.routes.apply(&pod("a"), &there_and_back).await.unwrap();
    assert_eq!(pods_on(&a, chats()).await, []);
    assert_eq!(pods_on(&a, messages("c1")).await, [pod("a")]);
    for _ in 0..50 {
        a.routes.apply(&pod("a"), &[add(chats(), LONG)]).await.unwrap();
        assert_eq!(pods_on(&a, chats()).await, [pod("a")]);
        a.routes.apply(&pod("a"), &[remove(chats())]).await.unwrap();
        assert_eq!(pods_on(&a, chats()).await, []);
    }
}

async fn a_route_runs_out_unless_renewed(fleet: Fleet) {
    let a = fleet.pod("a");
    a.routes.apply(&pod("a"), &[add(messages("left"), SHORT), add(messages("renewed"), SHORT)]).await.unwrap();
    assert_eq!(pods_on(&a, messages("left")).await, [pod("a")]);
    a.routes.apply(&pod("a"), &[add(messages("renewed"), LONG)]).await.unwrap();
    wait::until("the route runs out", || async { pods_on(&a, messages("left")).await.is_empty() }).await;
    assert_eq!(pods_on(&a, messages("renewed")).await, [pod("a")]);
}

async fn a_pod_that_was_retired_is_gone_and_taken_out_of_the_routes_named_with_it(fleet: Fleet) {
    let (a, dead) = (fleet.pod("a"), fleet.pod("dead"));
    dead.routes.announce(Announce::of(&record("dead"), SHORT)).await.unwrap();
    dead.routes.apply(&pod("dead"), &[add(chats(), LONG), add(messages("c1"), LONG), add(messages("c2"), LONG)]).await.unwrap();
    a.routes.apply(&pod("a"), &[add(chats(), LONG)]).await.unwrap();
    wait::until("it lapses", || async { a.routes.retire(&[pod("dead")]).await.unwrap() == [true] }).await;
    let asked = [(pod("dead"), vec![chats(), messages("c1")])];
    assert_eq!(a.routes.resolve(&asked, false).await.unwrap().1, [Standing::Unheard], "nothing is taken out unless asked for");
    assert_eq!(pods_on(&a, messages("c1")).await, [pod("dead")]);
    assert_eq!(a.routes.resolve(&asked, true).await.unwrap().1, [Standing::Gone]);
    assert_eq!(pods_on(&a, chats()).await, [pod("a")]);
    assert_eq!(pods_on(&a, messages("c1")).await, []);
    assert_eq!(pods_on(&a, messages("c2")).await, [pod("dead")]);
}

async fn a_pod_whose_liveness_key_is_back_keeps_its_routes(fleet: Fleet) {
    let (a, back) = (fleet.pod("a"), fleet.pod("back"));
    back.routes.apply(&pod("back"), &[add(chats(), LONG)]).await.unwrap();
    assert_eq!(a.routes.retire(&[pod("back")]).await.unwrap(), [true]);
    back.routes.announce(Announce::of(&record("back"), LONG)).await.unwrap();
    assert_eq!(a.routes.retire(&[pod("back")]).await.unwrap(), [false]);
    let asked = [(pod("back"), vec![chats()])];
    assert_eq!(a.routes.resolve(&asked, true).await.unwrap().1, [Standing::Alive(record("back"))]);
    assert_eq!(pods_on(&a, chats()).await, [pod("back")]);
}

async fn pods_are_told_apart_by_what_the_store_knows_of_them(fleet: Fleet) {
    let (a, silent, old) = (fleet.pod("a"), fleet.pod("silent"), fleet.pod("old"));
    a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    silent.routes.announce(Announce::of(&record("silent"), SHORT)).await.unwrap();
    fleet.pod("gone").routes.leave(&record("gone")).await.unwrap();
    old.routes.apply(&pod("old"), &[add(chats(), LONG)]).await.unwrap();
    let asked: Vec<_> = ["old", "silent", "a", "gone"].map(|id| (pod(id), vec![chats()])).into();
    let expected = [Standing::Unheard, Standing::Member, Standing::Alive(record("a")), Standing::Gone];
    wait::until("the silent one lapses", || async { a.routes.resolve(&asked, true).await.unwrap().1 == expected }).await;
    assert_eq!(pods_on(&a, chats()).await, [pod("old")], "one that never announces itself keeps its routes");
}

async fn a_pod_that_says_goodbye_is_told_from_one_that_falls_silent(fleet: Fleet) {
    let (a, b, c) = (fleet.pod("a"), fleet.pod("b"), fleet.pod("c"));
    let (me, known) = (record("a"), [pod("b"), pod("c")]);
    let look = || async { a.routes.announce(Announce { known: &known, ..Announce::of(&me, LONG) }).await.unwrap() };
    b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap();
    c.routes.announce(Announce::of(&record("c"), SHORT)).await.unwrap();
    b.routes.leave(&record("b")).await.unwrap();
    wait::until("c lapses", || async { look().await.lapsed == [pod("c")] }).await;
    assert_eq!(look().await.left, [Goodbye { pod: pod("b"), started_at: record("b").started_at }]);
    b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap();
    assert_eq!(look().await.left, [], "it is back under its id");
}

async fn a_live_record_of_another_process_is_not_overwritten(fleet: Fleet) {
    let (a, twin) = (fleet.pod("a"), fleet.pod("a"));
    let other = PodRecord { address: "elsewhere:50051".into(), ..record("a") };
    a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    let refused = twin.routes.announce(Announce::of(&other, LONG)).await;
    let Err(AnnounceError::Taken(taken)) = refused else { panic!("{refused:?}") };
    assert_eq!(taken.record, record("a"));
    assert!(taken.expires_in > LONG / 2 && taken.expires_in <= LONG, "{:?}", taken.expires_in);
    twin.routes.leave(&other).await.unwrap();
    assert!(a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().was_present, "nor taken out");
    // One that is known to be gone is replaced at once, and any other when it has lapsed.
    let instead = Announce { instead_of: Some(&taken.record), ..Announce::of(&other, SHORT) };
    assert!(!twin.routes.announce(instead).await.unwrap().was_present);
    assert!(a.routes.announce(Announce::of(&record("a"), LONG)).await.is_err());
    wait::until("it lapses", || async { a.routes.announce(Announce::of(&record("a"), LONG)).await.is_ok() }).await;
}

async fn a_look_up_reads_no_more_pods_of_a_route_than_a_fleet_has(fleet: Fleet) {
    let a = fleet.pod("a");
    a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    for n in 0..=MAX_PODS {
        a.routes.apply(&pod(&format!("unknown-{n}")), &[add(messages("crowded"), LONG)]).await.unwrap();
    }
    a.routes.apply(&pod("a"), &[add(messages("crowded"), LONG), add(chats(), LONG)]).await.unwrap();
    let seen = a.routes.lookup(&nobody(), &[chats(), messages("crowded")]).await.unwrap();
    assert_eq!(seen.pods[0], [pod("a")]);
    // Its members are still found, or any peer counts as one of them.
    assert!(seen.pods[1] == [pod("a")] || seen.unread == [1], "{} read, unread: {:?}", seen.pods[1].len(), seen.unread);
}

async fn the_first_announcement_makes_the_epoch(fleet: Fleet) {
    let a = fleet.pod("a");
    assert_eq!(a.routes.lookup(&nobody(), &[]).await.unwrap().epoch, None);
    let first = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    assert!(!first.was_present);
    assert!(!first.epoch.0.is_empty());
    assert_eq!((first.pods, first.lapsed), (vec![record("a")], vec![]));
}

async fn a_later_announcement_keeps_the_epoch(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    let first = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    assert_eq!(b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap().epoch, first.epoch);
    assert_eq!(a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().epoch, first.epoch);
}

async fn a_look_up_carries_the_epoch(fleet: Fleet) {
    let a = fleet.pod("a");
    let epoch = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().epoch;
    assert_eq!(a.routes.lookup(&nobody(), &[chats()]).await.unwrap().epoch, Some(epoch));
}

async fn the_epoch_is_missing_after_a_flush_until_somebody_announces(mut fleet: Fleet) {
    let a = fleet.pod("a");
    let before = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().epoch;
    a.routes.apply(&pod("a"), &[add(chats(), LONG)]).await.unwrap();
    fleet.start_again_empty().await;

    let seen = a.routes.lookup(&nobody(), &[chats()]).await.unwrap();
    assert_eq!((seen.epoch, &seen.pods[0][..]), (None, &[][..]));
    let again = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    assert_ne!(again.epoch, before);
    assert!(!again.was_present);
}

async fn announcing_again_finds_the_pod_present(fleet: Fleet) {
    let a = fleet.pod("a");
    a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    assert!(a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().was_present);
}

async fn announcing_after_expiry_says_that_the_pod_was_not_there(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.routes.announce(Announce::of(&record("a"), SHORT)).await.unwrap();
    let lapsed = || async { b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap().lapsed == [pod("a")] };
    wait::until("the liveness key runs out", lapsed).await;
    assert!(!a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().was_present);
    assert!(a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().was_present);
}

async fn announcing_after_being_pruned_says_that_the_pod_was_not_there(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    b.routes.leave(&record("a")).await.unwrap();
    assert!(!a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().was_present);
}

async fn a_pod_that_was_retired_by_others_finds_that_counted(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    let first = a.routes.announce(Announce::of(&record("a"), SHORT)).await.unwrap();
    b.routes.retire(&[pod("a")]).await.unwrap();
    assert_eq!(
        a.routes.announce(Announce::of(&record("a"), SHORT)).await.unwrap().retirements,
        first.retirements,
        "it was alive"
    );
    let lapsed = || async { b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap().lapsed == [pod("a")] };
    wait::until("the liveness key runs out", lapsed).await;
    b.routes.retire(&[pod("a")]).await.unwrap();
    // Also when the answer to one announcement is lost.
    let _ = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    assert_eq!(a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().retirements, first.retirements + 1);
}

async fn a_pod_that_leaves_by_itself_is_not_counted_as_retired(fleet: Fleet) {
    let a = fleet.pod("a");
    let first = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    a.routes.leave(&record("a")).await.unwrap();
    assert_eq!(a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().retirements, first.retirements);
}

async fn a_pod_that_was_passed_over_finds_that_counted_and_stays_a_member(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    let first = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    b.routes.pass_over(&pod("a")).await.unwrap();
    assert_eq!(b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap().pods.len(), 2);
    for _ in 0..2 {
        let again = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
        assert_eq!((again.retirements, again.was_present), (first.retirements + PASSED_OVER, true));
    }
}

async fn only_the_first_announcement_on_an_empty_store_makes_the_epoch(mut fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    assert!(a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().epoch_created);
    assert!(!b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap().epoch_created);
    fleet.start_again_empty().await;
    assert!(b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap().epoch_created);
}

async fn a_pod_that_starts_again_was_not_there(fleet: Fleet) {
    fleet.pod("a").routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    assert!(!fleet.pod("a").routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().was_present);
}

async fn announcements_list_the_living_and_the_lapsed(fleet: Fleet) {
    let (a, b, c) = (fleet.pod("a"), fleet.pod("b"), fleet.pod("c"));
    a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    b.routes.announce(Announce::of(&record("b"), SHORT)).await.unwrap();
    let seen = c.routes.announce(Announce::of(&record("c"), LONG)).await.unwrap();
    let mut pods = seen.pods;
    pods.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(pods, [record("a"), record("b"), record("c")]);
    let lapsed = || async {
        let seen = c.routes.announce(Announce::of(&record("c"), LONG)).await.unwrap();
        seen.lapsed == [pod("b")] && seen.pods.len() == 2
    };
    wait::until("b lapses", lapsed).await;
}

async fn a_retired_pod_is_no_member(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    b.routes.announce(Announce::of(&record("b"), LONG)).await.unwrap();
    b.routes.leave(&record("b")).await.unwrap();
    let seen = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    assert_eq!((seen.pods, seen.lapsed), (vec![record("a")], vec![]));
}

async fn retiring_spares_a_living_pod_when_asked_to(fleet: Fleet) {
    let (a, b) = (fleet.pod("a"), fleet.pod("b"));
    b.routes.announce(Announce::of(&record("b"), SHORT)).await.unwrap();
    a.routes.retire(&[pod("b")]).await.unwrap();
    assert_eq!(a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap().pods.len(), 2);
    let retired = || async {
        a.routes.retire(&[pod("b")]).await.unwrap();
        let seen = a.routes.announce(Announce::of(&record("a"), LONG)).await.unwrap();
        seen.pods.len() == 1 && seen.lapsed.is_empty()
    };
    wait::until("b lapses and is retired", retired).await;
}

async fn a_change_of_nothing_and_a_look_up_of_nothing_are_fine(fleet: Fleet) {
    let a = fleet.pod("a");
    a.routes.apply(&pod("a"), &[]).await.unwrap();
    assert_eq!(a.routes.resolve(&[], true).await.unwrap().1, []);
    assert!(a.routes.retire(&[]).await.unwrap().is_empty());
    assert!(a.routes.lookup(&nobody(), &[]).await.unwrap().pods.is_empty());
}
