//! Outages of the store: each call fails soon, and works again as soon as the store does.

use std::{future::Future, time::Duration};

use daisi_ws_domain::{
    route::RouteKey,
    session::{Kill, KillClaim, SessionKind},
};
use daisi_ws_service::{
    ports::{Announce, AnnounceError, KeyKind, LockRenewal, RouteChange, StoreError},
    telemetry::Chain,
};
use tokio::time::Instant;

use super::{
    fleet::{Fleet, LONG, Pod, agent, chat, company, nobody, owner, pod, record, user},
    on_both,
};

on_both! {
    a_stopped_store_fails_calls_soon_and_all_work_after_it_is_back,
    a_frozen_store_fails_calls_soon_and_all_work_after_it_thaws,
    a_store_that_is_down_at_the_start_is_used_once_it_is_up,
    a_restart_that_no_call_saw_fails_none,
    a_store_that_denies_is_not_away_and_says_so_to_every_call,
    a_lock_of_another_kind_is_refused_for_its_own_session_and_the_store_is_not_away,
    route_changes_stay_in_order_over_a_freeze,
}

/// "Within a second", on a machine that has other things to do.
const SOON: Duration = Duration::from_millis(1500);

async fn timed<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<(), StoreError> {
    let start = Instant::now();
    let outcome = call.await.map(drop);
    assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
    outcome
}

fn of_the_store(error: AnnounceError) -> StoreError {
    match error {
        AnnounceError::Store(error) => error,
        AnnounceError::Taken(taken) => panic!("{taken}"),
    }
}

fn chats() -> RouteKey {
    RouteKey::Chats { company: company(), agent: agent() }
}

/// One call of each method, all at once.
async fn call_everything(a: &Pod) -> Vec<Result<(), StoreError>> {
    let (sari, me, seen, id, one_chat, me_record) = (user("sari"), owner("a/1"), owner("b/1"), pod("a"), chat("c1"), record("a"));
    let locks = [(sari.clone(), me.clone())];
    let renewals = [LockRenewal { key: sari.clone(), owner: me.clone(), ttl: LONG, chat: None, chat_ttl: LONG }];
    let kill = Kill { key: sari.clone(), new_pod: id.clone(), connection: None, victim: None, claim: KillClaim::Newer };
    let (routes, changes) = ([chats()], [RouteChange::Add { route: chats(), ttl: LONG }]);
    let (asker, dead, gone, unknown) = (nobody(), [pod("dead")], record("gone"), [(pod("dead"), vec![chats()])]);
    let (acquire, replace, release, renew, save, apply, lookup, resolve, announce, retire, leave, pass_over, publish, put) = tokio::join!(
        timed(a.locks.acquire(&sari, &me, LONG)),
        timed(a.locks.replace(&sari, &seen, &me, LONG)),
        timed(a.locks.release(&locks)),
        timed(a.locks.renew(&renewals)),
        timed(a.locks.save_chat(&sari, &one_chat, LONG)),
        timed(a.routes.apply(&id, &changes)),
        timed(a.routes.lookup(&asker, &routes)),
        timed(a.routes.resolve(&unknown, true)),
        timed(async { a.routes.announce(Announce::of(&me_record, LONG)).await.map_err(of_the_store) }),
        timed(a.routes.retire(&dead)),
        timed(a.routes.leave(&gone)),
        timed(a.routes.pass_over(&id)),
        timed(a.kills.publish(&kill)),
        timed(a.tokens.put(SessionKind::User, "00aa", bytes::Bytes::new(), LONG)),
    );
    vec![acquire, replace, release, renew, save, apply, lookup, resolve, announce, retire, leave, pass_over, publish, put]
}

fn assert_all_away(outcomes: &[Result<(), StoreError>]) {
    let is_away = |outcome: &Result<(), StoreError>| outcome.as_ref().is_err_and(StoreError::is_away);
    assert!(outcomes.iter().all(is_away), "{outcomes:?}");
}

fn assert_all_fine(outcomes: &[Result<(), StoreError>]) {
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

async fn a_stopped_store_fails_calls_soon_and_all_work_after_it_is_back(mut fleet: Fleet) {
    let a = fleet.pod("a");
    assert_all_fine(&call_everything(&a).await);
    fleet.stop();
    assert_all_away(&call_everything(&a).await);
    assert_all_away(&call_everything(&a).await);
    fleet.start_again_empty().await;
    assert_all_fine(&call_everything(&a).await);
}

async fn a_frozen_store_fails_calls_soon_and_all_work_after_it_thaws(fleet: Fleet) {
    let a = fleet.pod("a");
    assert_all_fine(&call_everything(&a).await);
    fleet.freeze();
    assert_all_away(&call_everything(&a).await);
    assert_all_away(&call_everything(&a).await);
    fleet.thaw();
    assert_all_fine(&call_everything(&a).await);
}

async fn a_store_that_is_down_at_the_start_is_used_once_it_is_up(mut fleet: Fleet) {
    fleet.stop();
    let a = fleet.pod("a");
    assert_all_away(&call_everything(&a).await);
    fleet.start_again_empty().await;
    assert_all_fine(&call_everything(&a).await);
}

async fn a_store_that_denies_is_not_away_and_says_so_to_every_call(fleet: Fleet) {
    let a = fleet.pod("a");
    assert_all_fine(&call_everything(&a).await);
    fleet.deny(true).await;
    for outcome in call_everything(&a).await {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::Denied(_)) && !error.is_away() && !error.may_pass(), "{error:?}");
        assert!(Chain(&error).to_string().to_uppercase().contains("NOPERM"), "the cause is kept: {}", Chain(&error));
    }
    fleet.deny(false).await;
    assert_all_fine(&call_everything(&a).await);
}

async fn a_lock_of_another_kind_is_refused_for_its_own_session_and_the_store_is_not_away(fleet: Fleet) {
    let (a, sari) = (fleet.pod("a"), user("sari"));
    fleet.put_no_lock(&sari).await;
    let error = a.locks.acquire(&sari, &owner("a/1"), LONG).await.unwrap_err();
    assert!(matches!(error, StoreError::WrongType(KeyKind::Lock, _)) && !error.is_away() && error.is_of_one_key(), "{error:?}");
    assert!(Chain(&error).to_string().contains("WRONGTYPE"), "the cause is kept: {}", Chain(&error));
    a.locks.acquire(&user("budi"), &owner("a/2"), LONG).await.unwrap();
}

async fn a_restart_that_no_call_saw_fails_none(mut fleet: Fleet) {
    let a = fleet.pod("a");
    // Twice, so that the pool holds several connections when the server goes.
    assert_all_fine(&call_everything(&a).await);
    fleet.stop();
    fleet.start_again_empty().await;
    assert_all_fine(&call_everything(&a).await);
}

async fn route_changes_stay_in_order_over_a_freeze(fleet: Fleet) {
    let a = fleet.pod("a");
    for _ in 0..5 {
        a.routes.apply(&pod("a"), &[RouteChange::Add { route: chats(), ttl: LONG }]).await.unwrap();
        fleet.freeze();
        // These get stuck on the way; none may be carried out after what is confirmed later.
        assert!(timed(a.routes.apply(&pod("a"), &[RouteChange::Remove { route: chats() }])).await.is_err());
        fleet.thaw();
        a.routes.apply(&pod("a"), &[RouteChange::Add { route: chats(), ttl: LONG }]).await.unwrap();
        for _ in 0..20 {
            assert_eq!(a.routes.lookup(&nobody(), &[chats()]).await.unwrap().pods, [[pod("a")]]);
        }
    }
}
