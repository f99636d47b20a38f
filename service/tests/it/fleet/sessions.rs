//! G3: one live session per key, no matter who fights for it, and the loser is told.

use std::time::Duration;

use daisi_ws_domain::{
    ids::{ConnectionId, PodId},
    session::LockOwner,
};
use daisi_ws_service::{
    application::admission::connect::Unavailable,
    config::OutagePolicy,
    ports::{Acquire, SessionLocks as _},
};

use crate::support::fleet::{Fleet, admin, key, user};

const QUIET: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn g3_a_second_connect_takes_the_session_over_and_the_first_is_closed_with_4402() {
    let fleet = Fleet::start(2).await;
    for (first, second) in [(0, 1), (0, 0)] {
        for claims in [user("acme", "a1", "sari"), admin("root", None)] {
            let mut old = fleet.connect(first, claims.clone()).await.unwrap();
            let new = fleet.connect(second, claims).await.unwrap();
            let goodbye = old.expect("error").await;
            assert_eq!(goodbye["payload"]["code"], "SessionConflict");
            assert_eq!(old.expect_close().await, Some(4402));
            new.close().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g3_only_the_successor_gets_events_after_a_take_over() {
    let fleet = Fleet::start(2).await;
    let mut old = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let mut new = fleet.connect(1, user("acme", "a1", "sari")).await.unwrap();
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    assert_eq!(new.expect_event().await.seq, seq);
    assert!(old.drain_seqs(QUIET).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn g3_of_many_that_fight_for_one_session_exactly_one_is_open_in_the_end() {
    let fleet = Fleet::start(3).await;
    let attempts = (0..9).map(|n| fleet.open(n % 3, user("acme", "a1", "sari"), 4096));
    let sockets: Vec<_> = futures_util::future::join_all(attempts).await.into_iter().filter_map(Result::ok).collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let open: usize = fleet.pods.iter().map(|pod| pod.pod.hub().len()).sum();
    assert_eq!(open, 1, "of {} sockets", sockets.len());
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    let mut got = 0;
    for mut socket in sockets {
        got += socket.drain_seqs(QUIET).await.iter().filter(|s| **s == seq).count();
    }
    assert_eq!(got, 1);
}

#[tokio::test(start_paused = true)]
async fn g3_the_session_of_a_killed_pod_is_taken_over_within_a_second() {
    let fleet = Fleet::start(2).await;
    let _old = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    fleet.kill(0);
    let started = tokio::time::Instant::now();
    let _new = fleet.connect(1, user("acme", "a1", "sari")).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn g3_a_lock_found_in_the_hands_of_a_living_socket_closes_the_socket() {
    let fleet = Fleet::start(2).await;
    let claims = user("acme", "a1", "sari");
    let mut client = fleet.connect(0, claims.clone()).await.unwrap();
    let _living = fleet.connect(1, user("acme", "a1", "tono")).await.unwrap();
    let living = fleet.pods[1].pod.hub().sessions()[0].owner().clone();
    // A kill that was never heard: the lock changes hands behind the pod's back.
    let thief = fleet.store.handle(PodId::parse("pod-x").unwrap());
    let prober = LockOwner::new(PodId::parse("pod-x").unwrap(), ConnectionId::parse("p").unwrap());
    let ttl = Duration::from_secs(60);
    let Acquire::Held(seen) = thief.acquire(&key(&claims), &prober, ttl).await.unwrap() else { panic!("held") };
    thief.replace(&key(&claims), &seen, &living, ttl).await.unwrap();
    assert_eq!(client.expect_close().await, Some(4402));
    assert_eq!(thief.acquire(&key(&claims), &prober, ttl).await.unwrap(), Acquire::Held(living));
}

#[tokio::test(start_paused = true)]
async fn g3_with_policy_available_sockets_stay_through_an_outage_of_the_store() {
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    fleet.store.set_down(true);
    client.expect_silence(Duration::from_secs(120)).await;
    fleet.store.set_down(false);
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    assert_eq!(client.expect_event().await.seq, seq);
}

#[tokio::test(start_paused = true)]
async fn g3_with_policy_strict_sockets_are_closed_with_1013_once_their_lock_has_run_out() {
    let fleet = Fleet::with(1, |config| config.app.redis_outage_policy = OutagePolicy::Strict).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    fleet.store.set_down(true);
    client.expect_silence(Duration::from_secs(15)).await;
    assert_eq!(client.expect_close().await, Some(1013));
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_free_as_soon_as_its_socket_has_gone() {
    let fleet = Fleet::start(2).await;
    let claims = user("acme", "a1", "sari");
    fleet.connect(0, claims.clone()).await.unwrap().close().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let other = fleet.store.handle(PodId::parse("pod-x").unwrap());
    let owner = LockOwner::new(PodId::parse("pod-x").unwrap(), ConnectionId::parse("c").unwrap());
    let taken = other.acquire(&key(&claims), &owner, Duration::from_secs(9)).await.unwrap();
    assert!(matches!(taken, Acquire::Acquired { .. }));
}

#[tokio::test(start_paused = true)]
async fn locks_live_as_long_as_their_sockets() {
    let fleet = Fleet::start(1).await;
    let claims = user("acme", "a1", "sari");
    let _client = fleet.connect(0, claims.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(55)).await;
    let other = fleet.store.handle(PodId::parse("pod-x").unwrap());
    let owner = LockOwner::new(PodId::parse("pod-x").unwrap(), ConnectionId::parse("c").unwrap());
    assert!(matches!(other.acquire(&key(&claims), &owner, Duration::from_secs(9)).await.unwrap(), Acquire::Held(_)));
}

#[tokio::test(start_paused = true)]
async fn the_selected_chat_is_restored_before_ready_on_whichever_pod_the_user_comes_back() {
    let fleet = Fleet::start(2).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    client.select_chat("c.1@x").await;
    client.close().await;
    let mut back = fleet.open(1, user("acme", "a1", "sari"), 4096).await.unwrap();
    assert_eq!(back.expect_ready().await["payload"]["chat_id"], "c.1@x");
    let seq = fleet.publish("wa.acme.a1.messages.c.1@x", "{}");
    assert_eq!(back.expect_event().await.seq, seq);
}

#[tokio::test(start_paused = true)]
async fn g7_a_new_session_is_refused_within_a_second_while_the_store_is_away_or_frozen() {
    let fleet = Fleet::start(1).await;
    for freeze in [false, true] {
        let fault = |on| if freeze { fleet.store.set_frozen(on) } else { fleet.store.set_down(on) };
        fault(true);
        let started = tokio::time::Instant::now();
        let refused = fleet.open(0, user("acme", "a1", "sari"), 4096).await.err().unwrap();
        let why = refused.unavailable().map(Unavailable::as_str);
        assert_eq!(why, Some(if freeze { "store_timed_out" } else { "store_unreachable" }), "{refused}");
        assert!(started.elapsed() <= Duration::from_secs(1));
        fault(false);
        tokio::time::sleep(Duration::from_secs(2)).await;
        fleet.connect(0, user("acme", "a1", "sari")).await.unwrap().close().await;
    }
}
