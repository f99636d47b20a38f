//! Locks of sockets that are no more, and locks that may be: after a crash, and after the store went back in time.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    close::CloseReason,
    event::{Address, Event, Path, Payload, StreamId},
    ids::{ConnectionId, PodId},
    session::LockOwner,
};
use daisi_ws_service::{
    application::admission::connect::{ConnectError, Unavailable},
    config::OutagePolicy,
    ports::{Acquire, SessionLocks},
};
use tokio::{sync::Semaphore, time::Instant};

use crate::support::{
    client::{Client, Seen},
    fleet::{Fleet, key, user},
    renewals::renewals,
};

const QUIET: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);

fn sari() -> daisi_ws_domain::claims::Claims {
    user("acme", "a1", "sari")
}

fn owner(text: &str) -> LockOwner {
    LockOwner::parse(text).unwrap()
}

/// Who stands in the lock.
async fn holder(fleet: &Fleet) -> Option<LockOwner> {
    let prober = fleet.store.handle(PodId::parse("prober").unwrap());
    match prober.acquire(&key(&sari()), &owner("prober/0"), Duration::from_millis(1)).await.unwrap() {
        Acquire::Held(holder) => Some(holder),
        Acquire::Acquired { .. } => {
            prober.release(&[(key(&sari()), owner("prober/0"))]).await.unwrap();
            None
        }
    }
}

/// Puts an owner in the lock, no matter who has it.
async fn usurp(fleet: &Fleet, usurper: &str, ttl: Duration) {
    let thief = fleet.store.handle(PodId::parse("thief").unwrap());
    while let Acquire::Held(seen) = thief.acquire(&key(&sari()), &owner(usurper), ttl).await.unwrap() {
        thief.replace(&key(&sari()), &seen, &owner(usurper), ttl).await.unwrap();
    }
}

/// It gets an event, stays open, and its pod's socket is the one in the lock.
async fn has_the_session(fleet: &Fleet, pod: usize, client: &mut Client) {
    client.expect_silence(60 * SECOND).await;
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    assert_eq!(client.expect_event().await.seq, seq);
    assert_eq!(holder(fleet).await.map(|owner| owner.pod), Some(fleet.pods[pod].id.clone()));
}

fn attempts(fleet: &Fleet) -> f64 {
    fleet.total("dws_session_lock_attempts_total")
}

// ---- the store goes back in time
// -------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn g3_a_restored_lock_of_a_socket_that_is_no_more_does_not_close_its_successor() {
    for (before, after) in [(0, 1), (0, 0)] {
        let fleet = Fleet::start(2).await;
        let mut old = fleet.connect(before, sari()).await.unwrap();
        let snapshot = fleet.store.snapshot();
        let mut new = fleet.connect(after, sari()).await.unwrap();
        assert_eq!(old.expect_close().await, Some(4402));
        fleet.store.restore(&snapshot);
        has_the_session(&fleet, after, &mut new).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_restored_lock_of_a_dead_pod_does_not_close_the_session_elsewhere() {
    let fleet = Fleet::start(2).await;
    let _old = fleet.connect(0, sari()).await.unwrap();
    // A restart may come soon after the crash or long after it.
    for wait in [SECOND, 20 * SECOND] {
        let snapshot = fleet.store.snapshot();
        fleet.kill(0);
        let mut new = fleet.connect(1, sari()).await.unwrap();
        tokio::time::sleep(wait).await;
        fleet.store.restore(&snapshot);
        has_the_session(&fleet, 1, &mut new).await;
        usurp(&fleet, "pod-0/crashed", 30 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_restored_lock_of_an_old_pods_bare_id_closes_nobody_unless_it_is_renewed() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, sari()).await.unwrap();
    usurp(&fleet, "old-pod", 25 * SECOND).await;
    has_the_session(&fleet, 0, &mut client).await;

    usurp(&fleet, "old-pod", 600 * SECOND).await;
    let since = Instant::now();
    assert_eq!(client.expect_close().await, Some(4402), "an old pod that renews a lock has the socket");
    assert!(since.elapsed() < 60 * SECOND, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn g3_a_restored_store_without_the_lock_closes_nobody() {
    let fleet = Fleet::start(2).await;
    let snapshot = fleet.store.snapshot();
    let mut client = fleet.connect(1, sari()).await.unwrap();
    fleet.store.restore(&snapshot);
    has_the_session(&fleet, 1, &mut client).await;
}

#[tokio::test(start_paused = true)]
async fn g3_a_restored_lock_of_an_older_socket_that_missed_its_kill_goes_to_the_newer() {
    let fleet = Fleet::start(2).await;
    let mut old = fleet.connect(0, sari()).await.unwrap();
    let snapshot = fleet.store.snapshot();
    // It hears neither the kill nor of its lock.
    fleet.store.cut(&fleet.pods[0].id, true);
    let mut new = fleet.connect(1, sari()).await.unwrap();
    fleet.store.restore(&snapshot);
    tokio::time::sleep(15 * SECOND).await;
    assert_eq!(holder(&fleet).await.map(|owner| owner.pod), Some(fleet.pods[1].id.clone()));
    fleet.store.cut(&fleet.pods[0].id, false);
    assert_eq!(old.expect_close().await, Some(4402));
    has_the_session(&fleet, 1, &mut new).await;
}

#[tokio::test(start_paused = true)]
async fn g3_while_the_owners_pod_cannot_be_asked_the_socket_stays_and_the_dispute_is_settled_when_it_can() {
    let fleet = Fleet::start(2).await;
    let mut old = fleet.connect(0, sari()).await.unwrap();
    let snapshot = fleet.store.snapshot();
    let mut new = fleet.connect(1, sari()).await.unwrap();
    assert_eq!(old.expect_close().await, Some(4402));
    // Another socket's owner: the one that is remembered as a predecessor needs no asking.
    fleet.store.restore(&snapshot);
    usurp(&fleet, "pod-0/gone", 60 * SECOND).await;
    fleet.cut_link(0, 1, true);
    new.expect_silence(20 * SECOND).await;
    fleet.cut_link(0, 1, false);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(holder(&fleet).await.map(|owner| owner.pod), Some(fleet.pods[1].id.clone()));
    has_the_session(&fleet, 1, &mut new).await;
}

#[tokio::test(start_paused = true)]
async fn g3_with_policy_strict_a_dispute_that_nobody_can_settle_ends_before_the_lock_would_have() {
    let fleet = Fleet::with(2, |config| config.app.redis_outage_policy = OutagePolicy::Strict).await;
    let mut client = fleet.connect(1, sari()).await.unwrap();
    fleet.cut_link(0, 1, true);
    let since = Instant::now();
    usurp(&fleet, "pod-0/who", 600 * SECOND).await;
    assert_eq!(client.expect_close().await, Some(1013));
    assert!(since.elapsed() <= 30 * SECOND, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn g3_a_successor_whose_kill_was_missed_still_has_the_session() {
    let fleet = Fleet::start(2).await;
    let mut old = fleet.connect(0, sari()).await.unwrap();
    fleet.store.cut(&fleet.pods[0].id, true);
    let mut new = fleet.connect(1, sari()).await.unwrap();
    fleet.store.cut(&fleet.pods[0].id, false);
    assert_eq!(old.expect_close().await, Some(4402));
    has_the_session(&fleet, 1, &mut new).await;
}

// ---- locks that crashed pods left
// ------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_lock_of_a_dead_pod_is_had_at_once() {
    let fleet = Fleet::start(2).await;
    let _old = fleet.connect(0, sari()).await.unwrap();
    fleet.kill(0);
    // Long enough that it counts as dead; a lock may have been renewed just before.
    tokio::time::sleep(20 * SECOND).await;
    usurp(&fleet, "pod-0/crashed", 60 * SECOND).await;
    let (since, before) = (Instant::now(), attempts(&fleet));
    fleet.connect(1, sari()).await.unwrap();
    assert!(since.elapsed() <= Duration::from_millis(250), "{:?}", since.elapsed());
    assert!(attempts(&fleet) - before <= 5.0, "{} claims", attempts(&fleet) - before);
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_a_socket_that_its_living_pod_does_not_know_is_had_at_once() {
    let fleet = Fleet::start(2).await;
    usurp(&fleet, "pod-0/of-the-process-before", 60 * SECOND).await;
    let since = Instant::now();
    fleet.connect(1, sari()).await.unwrap();
    assert!(since.elapsed() <= Duration::from_millis(100), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_this_very_pod_whose_socket_it_does_not_know_costs_two_claims_and_no_wait() {
    let fleet = Fleet::start(1).await;
    for left in ["pod-0/of-the-process-before", "pod-0"] {
        usurp(&fleet, left, 60 * SECOND).await;
        let (since, before) = (Instant::now(), attempts(&fleet));
        let client = fleet.connect(0, sari()).await.unwrap();
        assert_eq!((since.elapsed(), attempts(&fleet) - before), (Duration::ZERO, 2.0), "{left}");
        client.close().await;
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_a_pod_that_does_not_answer_and_has_its_liveness_key_is_not_had_before_it_could_let_go() {
    let fleet = Fleet::start(2).await;
    let _old = fleet.connect(0, sari()).await.unwrap();
    fleet.store.cut(&fleet.pods[0].id, true);
    fleet.cut_link(0, 1, true);
    let since = Instant::now();
    fleet.connect(1, sari()).await.unwrap();
    assert!(since.elapsed() > Duration::from_millis(300), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_an_old_pod_is_not_had_before_it_could_let_go() {
    let fleet = Fleet::start(1).await;
    usurp(&fleet, "old-pod", 60 * SECOND).await;
    let since = Instant::now();
    fleet.connect(0, sari()).await.unwrap();
    assert!(since.elapsed() > Duration::from_millis(300), "{:?}", since.elapsed());
}

// ---- policy strict
// ---------------------------------------------------------------------------------------------------------------

async fn strict(adaptive: bool) -> Fleet {
    Fleet::with(1, |config| {
        config.app.redis_outage_policy = OutagePolicy::Strict;
        let rule = &mut config.adaptive_ttl.session_lock;
        rule.enabled = adaptive;
        // Who has done nothing for four seconds has the shortest life.
        rule.activity_threshold = 2 * SECOND;
    })
    .await
}

/// Waits for the end, which must be by 1013 before the lock has run out, and not long before.
async fn ends_before_its_lock(client: &mut Client, confirmed: Instant, ttl: Duration) {
    assert_eq!(client.expect_close().await, Some(1013));
    let after = confirmed.elapsed();
    assert!(after < ttl && after > ttl - 4 * SECOND, "closed {after:?} after a confirmation for {ttl:?}");
}

#[tokio::test(start_paused = true)]
async fn g3_with_policy_strict_a_socket_is_closed_before_its_first_lock_runs_out() {
    let fleet = strict(false).await;
    let mut client = fleet.connect(0, sari()).await.unwrap();
    let confirmed = Instant::now();
    fleet.store.set_down(true);
    ends_before_its_lock(&mut client, confirmed, 30 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn g3_with_policy_strict_a_socket_is_closed_before_an_adaptive_lock_runs_out() {
    let fleet = strict(true).await;
    let mut client = fleet.connect(0, sari()).await.unwrap();
    let renewed = |fleet: &Fleet| fleet.labelled("dws_session_renewals_total", "renewed");
    let before = renewed(&fleet);
    while renewed(&fleet) < before + 2.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let confirmed = Instant::now();
    fleet.store.set_down(true);
    ends_before_its_lock(&mut client, confirmed, 15 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn g3_with_policy_strict_thousands_of_sockets_are_closed_before_their_locks_run_out_however_slowly_the_store_fails() {
    let fleet = strict(false).await;
    let mut clients = Vec::new();
    for n in 0..2500 {
        clients.push(fleet.connect(0, user("acme", &format!("a{}", n % 50), &format!("u{n}"))).await.unwrap());
    }
    let confirmed = Instant::now();
    fleet.store.set_frozen(true);
    for client in &mut clients {
        assert_eq!(client.expect_close().await, Some(1013));
    }
    assert!(confirmed.elapsed() < 30 * SECOND, "{:?}", confirmed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn g3_with_policy_strict_an_answer_that_comes_late_confirms_a_lock_from_when_it_was_asked_for() {
    let gate = Arc::new(Semaphore::new(1));
    let at_gate = Arc::clone(&gate);
    let mut fleet = strict(false).await;
    // Renewals are carried out, and wait at a gate with the answer.
    let late = renewals(move |locks, batch| {
        let gate = Arc::clone(&at_gate);
        Box::pin(async move {
            let renewed = locks.renew(&batch).await;
            let _pass = gate.acquire().await.expect("never closed");
            renewed
        })
    });
    let pod = fleet.add_pod(Some(late)).await;
    let mut client = fleet.connect(pod, sari()).await.unwrap();
    let connected = Instant::now();
    let closed = gate.acquire().await.unwrap();
    // Asked for after ten seconds at the latest, answered after twenty-five; from then on nothing is.
    tokio::time::sleep(25 * SECOND).await;
    drop(closed);
    tokio::time::sleep(Duration::from_millis(10)).await;
    fleet.store.set_down(true);
    assert_eq!(client.expect_close().await, Some(1013));
    let after = connected.elapsed();
    assert!(after > 30 * SECOND && after < 40 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn g3_with_policy_strict_a_thawed_process_writes_nothing_to_a_socket_whose_lock_may_be_anothers() {
    let fleet = strict(false).await;
    let mut client = fleet.connect(0, sari()).await.unwrap();
    tokio::time::sleep(SECOND).await;
    fleet.store.set_down(true);
    // What is in its mailbox when the process thaws, with all its timers overdue.
    let event = Event {
        address: Address::parse("wa", "wa.acme.a1.chats").unwrap(),
        payload: Payload::parse(&bytes::Bytes::from_static(b"{}")).unwrap(),
        stream: StreamId(1),
        seq: 1,
        stored_at: Duration::ZERO,
        request_id: None,
        traceparent: None,
    };
    let stood_still = tokio::time::advance(120 * SECOND);
    let taken = fleet.pods[0].pod.hub().deliver([&event], Path::Forwarded);
    assert!(taken[0].is_taken());
    stood_still.await;
    let seen = client.drain(QUIET).await;
    let events = seen.iter().filter(|seen| matches!(seen, Seen::Frame(frame, _) if frame["type"] == "event")).count();
    assert_eq!(events, 0, "{seen:?}");
    assert!(matches!(seen.last(), Some(Seen::Closed(Some(1013)))), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn g3_a_policy_that_becomes_strict_is_for_the_sockets_that_are_open() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, sari()).await.unwrap();
    tokio::time::sleep(SECOND).await;
    fleet.reconfigure(0, |config| config.app.redis_outage_policy = OutagePolicy::Strict);
    tokio::time::sleep(SECOND).await;
    fleet.store.set_down(true);
    let since = Instant::now();
    assert_eq!(client.expect_close().await, Some(1013));
    assert!(since.elapsed() < 30 * SECOND, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_lock_could_not_be_confirmed_while_it_was_connecting_is_told_to_try_again() {
    let fleet = Fleet::start(1).await;
    let hub = fleet.pods[0].pod.hub();
    fleet.store.refuse_route(&sari().base_route(), false);
    let end = async {
        while hub.is_empty() {
            tokio::task::yield_now().await;
        }
        let pending: Vec<ConnectionId> = hub.sessions().iter().map(|session| session.connection().clone()).collect();
        pending.iter().for_each(|connection| drop(hub.evict(connection, CloseReason::LockUnconfirmed)));
    };
    let (refused, ()) = tokio::join!(fleet.open(0, sari(), 4096), end);
    let why = refused.err();
    assert!(matches!(why, Some(ConnectError::StoreUnavailable(Unavailable::LockUnconfirmed))), "{why:?}");
}
