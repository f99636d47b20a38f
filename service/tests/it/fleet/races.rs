//! The decisions that close races: each test fails when its decision is taken away.

use std::{collections::BTreeSet, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::{
    ids::{ConnectionId, PodId},
    peer::PodRecord,
    route::RouteKey,
    session::{Kill, KillClaim, LockOwner},
};
use daisi_ws_service::{
    application::admission::connect::ConnectError,
    ports::{
        Acquire, Announce, AnnounceError, Announcement, Incarnation, KillBus as _, Lookup, RouteChange, Routes, SessionLocks,
        Standing, StoreError,
    },
};
use futures_util::future::{join_all, maybe_done};
use tokio::sync::{Notify, Semaphore};

use crate::support::{
    fleet::{Fleet, Wrap, key, user, without_repair},
    renewals::renewals,
};

const QUIET: Duration = Duration::from_secs(3);

/// Lets route writes, and announcements, pass only while their gates are open.
struct GatedRoutes {
    inner: Arc<dyn Routes>,
    gate: Arc<Semaphore>,
    announcements: Arc<Semaphore>,
}

#[async_trait]
impl Routes for GatedRoutes {
    async fn apply(&self, pod: &PodId, changes: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
        let _pass = self.gate.acquire().await.expect("never closed");
        self.inner.apply(pod, changes).await
    }
    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError> {
        self.inner.lookup(me, routes).await
    }
    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], prune: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        self.inner.resolve(pods, prune).await
    }
    async fn announce(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError> {
        let _pass = self.announcements.acquire().await.expect("never closed");
        self.inner.announce(call).await
    }
    async fn retire(&self, pods: &[PodId]) -> Result<Vec<bool>, StoreError> {
        self.inner.retire(pods).await
    }
    async fn leave(&self, me: &PodRecord) -> Result<(), StoreError> {
        self.inner.leave(me).await
    }
    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError> {
        self.inner.pass_over(pod).await
    }
}

async fn fleet_with_gates() -> (Fleet, usize, Arc<Semaphore>, Arc<Semaphore>) {
    let mut fleet = Fleet::start(1).await;
    let (gate, announcements) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
    let (at_gate, announced) = (Arc::clone(&gate), Arc::clone(&announcements));
    let gated = move |inner| {
        let (gate, announcements) = (Arc::clone(&at_gate), Arc::clone(&announced));
        Arc::new(GatedRoutes { inner, gate, announcements }) as Arc<dyn Routes>
    };
    let pod = fleet.add_pod(Some(Wrap { locks: None, routes: Some(Box::new(gated)) })).await;
    fleet.settle().await;
    (fleet, pod, gate, announcements)
}

async fn fleet_with_gate() -> (Fleet, usize, Arc<Semaphore>) {
    let (fleet, pod, gate, _) = fleet_with_gates().await;
    (fleet, pod, gate)
}

#[tokio::test(start_paused = true)]
async fn retirement_a_pod_that_has_left_is_not_made_a_member_again_by_an_announcement_under_way() {
    let (fleet, gated, _, announcements) = fleet_with_gates().await;
    let held = announcements.acquire().await.unwrap();
    // By now the next announcement waits at the gate.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let opener = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(held);
    };
    tokio::join!(fleet.pods[gated].pod.drain(Duration::from_secs(30)), opener);
    // Long enough for another announcement, and not for a liveness key to lapse.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let x = PodRecord { id: PodId::parse("x").unwrap(), address: "x:1".to_owned(), started_at: Duration::ZERO };
    let seen = fleet.store.handle(x.id.clone()).announce(Announce::of(&x, Duration::from_secs(5))).await.unwrap();
    let members: BTreeSet<&PodId> = seen.pods.iter().map(|pod| &pod.id).chain(&seen.lapsed).collect();
    assert_eq!(members, BTreeSet::from([&fleet.pods[0].id, &x.id]));
}

#[tokio::test(start_paused = true)]
async fn pending_hub_entry_a_kill_finds_a_session_that_is_still_connecting() {
    let (fleet, gated, gate) = fleet_with_gate().await;
    let closed = gate.acquire().await.unwrap();
    // It has the lock and waits for its routes; meanwhile another pod takes the session.
    let pending = fleet.open(gated, user("acme", "a1", "sari"), 4096);
    let contender = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let started = tokio::time::Instant::now();
        let client = fleet.connect(0, user("acme", "a1", "sari")).await;
        (client, started.elapsed())
    };
    let (pending, (winner, took)) = tokio::join!(pending, contender);
    drop(closed);
    assert!(matches!(pending.err(), Some(ConnectError::Replaced)));
    assert!(winner.is_ok());
    assert!(took < Duration::from_millis(500), "the victim let go only after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_connecting_when_its_pod_drains_is_told_to_try_another_pod() {
    let (fleet, gated, gate) = fleet_with_gate().await;
    let closed = gate.acquire().await.unwrap();
    let pending = fleet.open(gated, user("acme", "a1", "sari"), 4096);
    let drain = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fleet.pods[gated].pod.drain(Duration::from_secs(5)).await;
    };
    let (pending, ()) = tokio::join!(pending, drain);
    drop(closed);
    assert!(matches!(pending.err(), Some(ConnectError::Draining)));
}

#[tokio::test(start_paused = true)]
async fn route_writer_a_leaving_session_does_not_take_the_route_from_an_arriving_one() {
    let (fleet, gated, gate) = fleet_with_gate().await;
    let leaving = fleet.connect(gated, user("acme", "a1", "u1")).await.unwrap();
    // The removal and the new registration both wait at the gate.
    let closed = gate.acquire().await.unwrap();
    leaving.close().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let arriving = fleet.connect(gated, user("acme", "a1", "u2"));
    let opener = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(closed);
    };
    let (arriving, ()) = tokio::join!(arriving, opener);
    let mut arriving = arriving.unwrap();
    for _ in 0..10 {
        let seq = fleet.publish("wa.acme.a1.chats", "{}");
        assert_eq!(arriving.expect_event().await.seq, seq);
    }
}

#[tokio::test(start_paused = true)]
async fn route_writer_ready_waits_until_the_route_is_confirmed() {
    let (fleet, gated, gate) = fleet_with_gate().await;
    let closed = gate.acquire().await.unwrap();
    let opener = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(closed);
    };
    let started = tokio::time::Instant::now();
    let connect = async {
        fleet.connect(gated, user("acme", "a1", "sari")).await.unwrap();
        started.elapsed()
    };
    let (took, ()) = tokio::join!(connect, opener);
    assert!(took >= Duration::from_millis(300), "ready came after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn route_writer_sessions_that_come_in_quick_succession_share_a_write_of_their_routes() {
    const ROUNDS: usize = 10;
    let fleet = Fleet::start(1).await;
    let writes = || fleet.labelled("dws_route_writes_total", "ok");
    let (before, since) = (writes(), tokio::time::Instant::now());
    let mut arriving = Vec::new();
    for round in 0..ROUNDS {
        let claims = (0..20).map(|n| user("acme", "a1", &format!("u{round}-{n}")));
        let mut connects = Box::pin(maybe_done(join_all(claims.map(|claims| fleet.connect(0, claims)))));
        // Every task has had its turn, and no time has passed.
        for _ in 0..100 {
            let _ = futures_util::poll!(connects.as_mut());
            tokio::task::yield_now().await;
        }
        arriving.push(connects);
    }
    assert_eq!(since.elapsed(), Duration::ZERO);
    join_all(arriving.iter_mut().map(Pin::as_mut)).await;
    let arrived = arriving.iter_mut().filter_map(|connects| connects.as_mut().take_output()).flatten().filter(Result::is_ok);
    assert_eq!(arrived.count(), 20 * ROUNDS);
    assert!((1.0..=3.0).contains(&(writes() - before)), "{} writes", writes() - before);
    // One by itself, later, waits for nothing.
    tokio::time::sleep(QUIET).await;
    let since = tokio::time::Instant::now();
    fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn victim_in_the_kill_a_late_kill_for_an_old_owner_spares_its_successor() {
    let fleet = Fleet::start(2).await;
    let claims = user("acme", "a1", "sari");
    let mut client = fleet.connect(0, claims.clone()).await.unwrap();
    let bus = fleet.store.handle(fleet.pods[1].id.clone());
    let kill = |victim: Option<LockOwner>| Kill {
        key: key(&claims),
        new_pod: fleet.pods[1].id.clone(),
        connection: None,
        victim,
        claim: KillClaim::Newer,
    };
    let earlier = LockOwner::new(fleet.pods[0].id.clone(), ConnectionId::parse("an-earlier-socket").unwrap());
    bus.publish(&kill(Some(earlier))).await.unwrap();
    client.expect_silence(QUIET).await;
    // An old pod names no victim: then who is not on its pod goes.
    bus.publish(&kill(None)).await.unwrap();
    assert_eq!(client.expect_close().await, Some(4402));
}

#[tokio::test(start_paused = true)]
async fn compare_and_set_take_over_a_newcomer_never_overwrites_another_newcomer() {
    // The owner is dead and holds the lock for its TTL. Both newcomers run through their attempts and end up replacing it.
    let fleet = Fleet::start(3).await;
    let _dead = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    fleet.kill(0);
    let (a, b) = tokio::join!(fleet.open(1, user("acme", "a1", "sari"), 4096), fleet.open(2, user("acme", "a1", "sari"), 4096));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let open = fleet.pods[1].pod.hub().len() + fleet.pods[2].pod.hub().len();
    assert_eq!(open, 1, "a: {:?}, b: {:?}", a.is_ok(), b.is_ok());
}

#[tokio::test(start_paused = true)]
async fn epoch_no_event_is_lost_when_the_store_comes_back_empty() {
    let fleet = Fleet::start(3).await;
    let mut clients = Vec::new();
    for pod in 0..3 {
        clients.push(fleet.connect(pod, user("acme", "a1", &format!("u{pod}"))).await.unwrap());
    }
    fleet.store.flush();
    // At once, before anybody can have registered again, and for a while after.
    let mut published = Vec::new();
    for _ in 0..200 {
        published.push(fleet.publish("wa.acme.a1.chats", "{}"));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    for client in &mut clients {
        let mut seen = client.drain_seqs(QUIET).await;
        seen.sort_unstable();
        assert_eq!(seen, published);
    }
}

#[tokio::test(start_paused = true)]
async fn epoch_a_new_pod_on_an_empty_store_takes_no_event_before_the_others_are_known() {
    let mut fleet = Fleet::start(2).await;
    let mut clients = Vec::new();
    for pod in 0..2 {
        clients.push(fleet.connect(pod, user("acme", "a1", &format!("u{pod}"))).await.unwrap());
    }
    // The others announce themselves within a second; until then the newcomer believes that it is alone.
    fleet.store.flush();
    // It is the newcomer that takes the events.
    fleet.stream.cut(&fleet.pods[0].id, true);
    fleet.stream.cut(&fleet.pods[1].id, true);
    fleet.add_pod(None).await;
    let published: Vec<u64> = (0..300).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
    for client in &mut clients {
        let mut seen = client.drain_seqs(QUIET).await;
        seen.sort_unstable();
        assert_eq!(seen, published);
    }
}

#[tokio::test(start_paused = true)]
async fn renewal_in_flight_leaves_no_ghost_lock_of_a_session_that_ended_meanwhile() {
    let gate = Arc::new(Semaphore::new(1));
    let at_gate = Arc::clone(&gate);
    let mut fleet = Fleet::start(1).await;
    // Renewals are asked for, and not done while the gate is closed.
    let gated = renewals(move |locks, batch| {
        let gate = Arc::clone(&at_gate);
        Box::pin(async move {
            let _pass = gate.acquire().await.expect("never closed");
            locks.renew(&batch).await
        })
    });
    let pod = fleet.add_pod(Some(gated)).await;
    let client = fleet.connect(pod, user("acme", "a1", "sari")).await.unwrap();
    let closed = gate.acquire().await.unwrap();
    // The renewal has read the sessions and waits; the session ends and its lock is released; then the renewal finds the lock
    // missing.
    tokio::time::sleep(Duration::from_secs(12)).await;
    client.close().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(closed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = tokio::time::Instant::now();
    fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(10), "a ghost held the lock: {:?}", started.elapsed());
}

/// A session ends while a renewal of its lock is under way that has no answer; another lives on beside it, or none.
async fn end_during_a_renewal_without_an_answer(has_company: bool) {
    let (gate, asked) = (Arc::new(Semaphore::new(1)), Arc::new(Notify::new()));
    let (at_gate, at_asked) = (Arc::clone(&gate), Arc::clone(&asked));
    let mut fleet = Fleet::start(1).await;
    // While the gate is closed renewals are carried out late, and their answers are lost.
    let lost = renewals(move |locks, batch| {
        let (gate, asked) = (Arc::clone(&at_gate), Arc::clone(&at_asked));
        Box::pin(async move {
            if gate.try_acquire().is_ok() {
                return locks.renew(&batch).await;
            }
            asked.notify_one();
            tokio::time::sleep(Duration::from_secs(1)).await;
            locks.renew(&batch).await?;
            Err(StoreError::TimedOut(Duration::from_millis(500)))
        })
    });
    let pod = fleet.add_pod(Some(lost)).await;
    let client = fleet.connect(pod, user("acme", "a1", "sari")).await.unwrap();
    let _other = if has_company { Some(fleet.connect(pod, user("acme", "a1", "tono")).await.unwrap()) } else { None };
    let closed = gate.acquire().await.unwrap();
    let errors = || fleet.labelled("dws_session_renewals_total", "error");
    let before = errors();
    // The renewal has read the sessions and is under way; the session ends and its lock is released; then the renewal finds the
    // lock missing.
    asked.notified().await;
    client.close().await;
    while errors() <= before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(closed);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let x = PodId::parse("x").unwrap();
    let prober = LockOwner::new(x.clone(), ConnectionId::parse("c").unwrap());
    let taken = fleet.store.handle(x).acquire(&key(&user("acme", "a1", "sari")), &prober, Duration::from_secs(1)).await.unwrap();
    assert_eq!(taken, Acquire::Acquired { saved_chat: None }, "a ghost holds the lock");
}

#[tokio::test(start_paused = true)]
async fn renewal_without_an_answer_leaves_no_ghost_lock_of_a_session_that_ended_meanwhile() {
    end_during_a_renewal_without_an_answer(true).await;
}

#[tokio::test(start_paused = true)]
async fn renewal_without_an_answer_leaves_no_ghost_lock_of_a_pods_only_session() {
    end_during_a_renewal_without_an_answer(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_a_newcomer_cannot_name_keeps_its_events_until_it_can() {
    let mut fleet = Fleet::start(2).await;
    let mut lonely = fleet.connect(1, user("acme", "lonely", "sari")).await.unwrap();
    fleet.store.cut(&fleet.pods[1].id, true);
    tokio::time::sleep(Duration::from_secs(7)).await;
    // Its liveness key has lapsed; the newcomer never saw its address, and takes the next event.
    fleet.add_pod(None).await;
    fleet.stream.cut(&fleet.pods[0].id, true);
    fleet.stream.cut(&fleet.pods[1].id, true);
    let seq = fleet.publish("wa.acme.lonely.chats", "{}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fleet.total("dws_events_unclaimed_total"), 0.0);
    fleet.store.cut(&fleet.pods[1].id, false);
    assert_eq!(lonely.expect_event().await.seq, seq);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_does_not_hold_up_a_healed_peer_under_steady_traffic() {
    let fleet = Fleet::start(2).await;
    fleet.stream.cut(&fleet.pods[1].id, true);
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    fleet.cut_link(0, 1, true);
    let publish = async |time: Duration| {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            fleet.publish("wa.acme.a1.chats", "{}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    publish(Duration::from_secs(20)).await;
    assert!(fleet.total("dws_grpc_circuitbreaker_tripped_total") > 0.0);
    fleet.cut_link(0, 1, false);
    let healed = tokio::time::Instant::now();
    let first = async {
        far.next().await;
        healed.elapsed()
    };
    let (first, ()) = tokio::join!(first, publish(Duration::from_secs(10)));
    assert!(first < Duration::from_secs(4), "the first event came {first:?} after the link healed");
}

#[tokio::test(start_paused = true)]
async fn thawed_pod_registers_again_and_tells_its_sessions_a_gap() {
    let fleet = Fleet::with(2, without_repair).await;
    let mut frozen = fleet.connect(1, user("acme", "a1", "frozen")).await.unwrap();
    fleet.freeze(1, true);
    // Past its liveness key, and past the settling time of nobody: pod 0 takes it for dead.
    tokio::time::sleep(Duration::from_secs(60)).await;
    fleet.publish("wa.acme.a1.chats", "{}");
    fleet.all_settled().await;
    fleet.freeze(1, false);
    let gap = frozen.expect("gap").await;
    assert_eq!((&gap["payload"]["reason"], &gap["payload"]["dropped"]), (&"pod_resumed".into(), &serde_json::Value::Null));
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    // Who found it dead tells it as well what was settled without it.
    assert_eq!(frozen.drain_seqs(QUIET).await, [seq]);
}

#[tokio::test(start_paused = true)]
async fn parked_events_of_one_cut_peer_do_not_stall_the_others() {
    let fleet = Fleet::with(3, |config| {
        config.app.nats_max_ack_pending = 200;
        config.app.forward_max_age = Duration::from_secs(100_000);
        config.app.forward_max_deliveries = 1_000_000;
    })
    .await;
    let mut cut = fleet.connect(2, user("acme", "a1", "cut")).await.unwrap();
    let mut well = fleet.connect(1, user("acme", "a2", "well")).await.unwrap();
    fleet.cut_link(0, 2, true);
    fleet.cut_link(1, 2, true);
    // Pod 2 takes a share of the events itself: stop it, so that all go through pods that cannot reach it.
    fleet.stream.cut(&fleet.pods[2].id, true);
    for _ in 0..1000 {
        fleet.publish("wa.acme.a1.chats", "{}");
    }
    let started = tokio::time::Instant::now();
    let seq = fleet.publish("wa.acme.a2.chats", "{}");
    assert_eq!(well.expect_event().await.seq, seq);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(fleet.labelled("dws_events_settled_total", "given_up") > 0.0);
    fleet.cut_link(0, 2, false);
    fleet.cut_link(1, 2, false);
    // What was given up is announced, as the pod can't read the stream, and what was parked arrives.
    let mut lost = 0;
    let mut got = 0;
    for seen in cut.drain(Duration::from_secs(90)).await {
        let crate::support::client::Seen::Frame(frame, _) = seen else { continue };
        match frame["type"].as_str() {
            Some("gap") => lost += frame["payload"]["dropped"].as_u64().unwrap(),
            Some("event") => got += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost + got, 1000, "{lost} announced, {got} delivered");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_to_register_again_is_announced_meanwhile_however_long_that_takes() {
    let (fleet, gated, gate) = fleet_with_gate().await;
    let _client = fleet.connect(gated, user("acme", "a1", "sari")).await.unwrap();
    let closed = gate.acquire().await.unwrap();
    fleet.store.flush();
    let x = PodId::parse("x").unwrap();
    let asked = [(fleet.pods[gated].id.clone(), Vec::new())];
    for second in 2..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let standing = fleet.store.handle(x.clone()).resolve(&asked, false).await.unwrap();
        assert!(second < 3 || matches!(standing.1[0], Standing::Alive(_)), "after {second} s: {standing:?}");
    }
    drop(closed);
}
