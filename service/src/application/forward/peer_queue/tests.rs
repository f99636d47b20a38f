mod gaps;
mod share;

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use daisi_ws_domain::{
    event::{Address, Payload, StreamId},
    ids::{ConnectionId, PodId},
    session::Kill,
};
use tokio::sync::{Semaphore, mpsc, watch};

use super::*;
use crate::{
    application::{
        fleet::directory::Directory,
        forward::{
            forwarder::Forwarder,
            in_flight::{InFlight, PASSES, Pulled, Settled},
        },
        wellness::{Wellness, stance::SLOW},
    },
    config::testing,
    metrics::Metrics,
    ports::{
        AckToken, Announce, AnnounceError, Announcement, Delivery, Evicted, Incarnation, Lookup, PeerError, Peers, RouteChange,
        RouteGap, Routes, Settlement, SourceLimits, Standing, StoreError,
    },
    runtime::{
        clock,
        lifecycle::{Shutdown, Tasks},
    },
};

/// What a peer does with a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Does {
    #[default]
    Takes,
    IsCut,
    Hangs,
    /// A second.
    TakesItsTime,
    Refuses,
    /// It takes all but an event of this sequence.
    FailsAt(u64),
    Panics,
}

/// Peers that do as told, and a store that counts who was passed over.
#[derive(Default)]
struct World {
    push: Mutex<Does>,
    gaps: Mutex<Does>,
    probe: Mutex<Does>,
    pushed: Mutex<Vec<usize>>,
    announced: Mutex<Vec<Vec<RouteGap>>>,
    passed_over: Mutex<Vec<PodId>>,
}

impl World {
    fn set(&self, does: Does) {
        for what in [&self.push, &self.gaps, &self.probe] {
            *what.lock().unwrap() = does;
        }
    }

    async fn answer(does: Does, seqs: &[u64]) -> Result<(), PeerError> {
        match does {
            Does::Takes => Ok(()),
            Does::IsCut => Err(PeerError::unreachable("cut")),
            Does::Hangs => std::future::pending().await,
            Does::TakesItsTime => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(())
            }
            Does::Refuses => Err(PeerError::refused("another fleet")),
            Does::FailsAt(seq) if !seqs.contains(&seq) => Ok(()),
            Does::FailsAt(_) => Err(PeerError::failed("on purpose")),
            Does::Panics => panic!("on purpose"),
        }
    }
}

#[async_trait]
impl Peers for World {
    async fn push(&self, _: &PodRecord, events: &[Arc<Event>]) -> Result<Vec<Handed>, PeerError> {
        self.pushed.lock().unwrap().push(events.len());
        let does = *self.push.lock().unwrap();
        if does == Does::Panics {
            self.set(Does::Takes);
        }
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        Self::answer(does, &seqs).await.map(|()| vec![Handed::Taken; events.len()])
    }
    async fn announce_gaps(&self, _: &PodRecord, gaps: &[RouteGap]) -> Result<(), PeerError> {
        let does = *self.gaps.lock().unwrap();
        Self::answer(does, &[]).await?;
        self.announced.lock().unwrap().push(gaps.to_vec());
        Ok(())
    }
    async fn holds(&self, _: &PodRecord, _: &[ConnectionId]) -> Result<Vec<bool>, PeerError> {
        unreachable!("queues ask for no sockets")
    }
    async fn evict(&self, _: &PodRecord, _: &Kill) -> Result<Evicted, PeerError> {
        unreachable!("queues close no sockets")
    }
    async fn probe(&self, _: &PodRecord) -> Result<(), PeerError> {
        let does = *self.probe.lock().unwrap();
        Self::answer(does, &[]).await
    }
    async fn introduce(&self, _: &PodRecord, _: &PodRecord) -> Result<Vec<PodRecord>, PeerError> {
        Err(PeerError::unreachable("cut"))
    }
    fn forget(&self, _: &PodId) {}
}

#[async_trait]
impl Routes for World {
    async fn apply(&self, _: &PodId, _: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
        unreachable!("queues write no routes")
    }
    async fn lookup(&self, _: &PodId, _: &[RouteKey]) -> Result<Lookup, StoreError> {
        unreachable!("queues look nothing up")
    }
    async fn resolve(&self, _: &[(PodId, Vec<RouteKey>)], _: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        unreachable!("queues resolve nobody")
    }
    async fn announce(&self, _: Announce<'_>) -> Result<Announcement, AnnounceError> {
        unreachable!("queues announce no pod")
    }
    async fn retire(&self, _: &[PodId]) -> Result<Vec<bool>, StoreError> {
        unreachable!("queues retire nobody")
    }
    async fn leave(&self, _: &PodRecord) -> Result<(), StoreError> {
        unreachable!("queues leave nothing")
    }
    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError> {
        self.passed_over.lock().unwrap().push(pod.clone());
        Ok(())
    }
}

const SOURCE: SourceLimits = SourceLimits { ack_wait: Duration::from_secs(10), max_ack_pending: 5000 };

struct Setup {
    world: Arc<World>,
    forwarder: Forwarder,
    directory: Arc<Directory>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    config: watch::Sender<Arc<Config>>,
    /// By sequence.
    deliveries: HashMap<u64, u64>,
    settled: mpsc::UnboundedReceiver<Settled>,
    outcomes: mpsc::UnboundedSender<Settled>,
    seq: u64,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.tasks.shutdown().hard.cancel();
    }
}

fn record(id: &str) -> PodRecord {
    PodRecord { id: PodId::parse(id).unwrap(), address: format!("{id}:1"), started_at: Duration::ZERO }
}

fn route(number: usize) -> RouteKey {
    Address::parse("wa", &format!("wa.a.n{number}.chats")).unwrap().routes()[0].clone()
}

/// Lets every task run until all wait.
async fn at_rest() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

impl Setup {
    fn new(limits: ForwardLimits) -> Self {
        let (world, metrics) = (Arc::<World>::default(), Arc::new(Metrics::new().unwrap()));
        let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), Span::none());
        let (config, live) = watch::channel(Arc::new(testing::config()));
        let (peers, routes) = (Arc::clone(&world) as _, Arc::clone(&world) as _);
        let directory = Arc::new(Directory::new(record("me").id, Duration::from_secs(20), Arc::clone(&metrics)));
        let wellness = Arc::new(Wellness::new(Arc::clone(&directory), Arc::clone(&metrics)));
        let forwarder = Forwarder::new(peers, routes, live, limits, tasks.clone(), wellness);
        let (outcomes, settled) = mpsc::unbounded_channel();
        Self { world, forwarder, directory, metrics, tasks, config, deliveries: HashMap::new(), settled, outcomes, seq: 0 }
    }

    fn of_fleet(pods: usize) -> Self {
        Self::new(ForwardLimits::of(SOURCE, 500, pods))
    }

    /// An event that was taken now, with a peer as its one target.
    fn target(&mut self, stored_at: Duration, deliveries: u64, bytes: usize) -> Target {
        self.seq += 1;
        self.deliveries.insert(self.seq, deliveries);
        let event = Event {
            address: Address::parse("wa", "wa.a.b.chats").unwrap(),
            payload: Payload::parse(&Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(bytes)))).unwrap(),
            stream: StreamId(1),
            seq: self.seq,
            stored_at,
            request_id: None,
            traceparent: None,
        };
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (event, delivery, ack_token) = (Arc::new(event), Delivery::now(deliveries), AckToken("t".into()));
        let pulled = Pulled { event, delivery, ack_token, permit: permit.into(), span: None };
        let in_flight = InFlight::new(pulled, 1, self.outcomes.clone());
        in_flight.target(PodId::parse("b").ok())
    }

    /// Queues an event for a peer.
    fn forward_as(&mut self, to: &str, stored_at: Duration, deliveries: u64, bytes: usize) {
        let target = self.target(stored_at, deliveries, bytes);
        self.forwarder.forward(&record(to), target);
    }

    fn forward(&mut self, to: &str) {
        self.forward_as(to, clock::now(), 1, 0);
    }

    /// Sends one event and waits for what becomes of it.
    async fn outcome(&mut self, stored_at: Duration, deliveries: u64) -> Settlement {
        self.forward_as("b", stored_at, deliveries, 0);
        self.settled.recv().await.unwrap().settlement
    }

    /// What became of events until now: acked, retried, given up.
    fn tally(&mut self) -> (usize, usize, usize) {
        let mut tally = (0, 0, 0);
        while let Ok(settled) = self.settled.try_recv() {
            match settled.settlement {
                Settlement::Ack => tally.0 += 1,
                Settlement::Retry(_) => tally.1 += 1,
                Settlement::Terminate => tally.2 += 1,
                Settlement::Extend => {}
            }
        }
        tally
    }

    /// Makes a queue, and has a gap pending for the sessions of its peer on so many routes.
    fn add_gap(&mut self, to: &str, routes: usize) {
        self.forward(to);
        for number in 0..routes {
            self.forwarder.owe_gap(&record(to).id, [route(number)], Gap::of(7, GapCause::GivenUp));
        }
    }

    fn pending_gaps(&self) -> i64 {
        self.metrics.gaps_owed.with_label_values(&["b"]).get()
    }
}

// ---- parked and given up
// ---------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn g2_an_event_for_an_unreachable_peer_is_tried_twice_and_parked() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::IsCut);
    assert_eq!(setup.outcome(clock::now(), 1).await, Settlement::Retry(retry_delay(1, 1)));
    assert_eq!(*setup.world.pushed.lock().unwrap(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn g2_an_event_is_given_up_past_its_tries_or_its_age() {
    let mut setup = Setup::of_fleet(3);
    setup.config.send_modify(|config| Arc::make_mut(config).app.forward_max_age = Duration::from_secs(30));
    setup.world.set(Does::IsCut);
    let tries = testing::config().app.forward_max_deliveries;
    assert_eq!(setup.outcome(clock::now(), tries).await, Settlement::Terminate);
    // Retried soon three times, then after 1, 2, 4, 8 and 10 s, or half of that: 15.4 s at most, and 32.6 s at least.
    assert!(matches!(setup.outcome(clock::now(), 8).await, Settlement::Retry(_)));
    assert_eq!(setup.outcome(clock::now(), 13).await, Settlement::Terminate);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_gives_no_event_up() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::IsCut);
    for ahead in [180, 86_400] {
        let outcome = setup.outcome(clock::now() - Duration::from_secs(ahead), 1).await;
        assert!(matches!(outcome, Settlement::Retry(_)), "{ahead} s: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_an_open_breaker_events_are_parked_at_once_and_nobody_is_called() {
    let mut setup = Setup::of_fleet(3);
    setup.world.set(Does::IsCut);
    for _ in 0..3 {
        setup.outcome(Duration::ZERO, 1).await;
    }
    let before = setup.world.pushed.lock().unwrap().len();
    let started = Instant::now();
    setup.outcome(clock::now(), 1).await;
    assert_eq!((setup.world.pushed.lock().unwrap().len(), started.elapsed()), (before, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_peer_fails_at_costs_the_others_of_its_batch_nothing() {
    let mut setup = Setup::of_fleet(3);
    // The first makes a call of its own.
    setup.forward("b");
    at_rest().await;
    setup.world.set(Does::FailsAt(100));
    for _ in 0..256 {
        setup.forward("b");
    }
    at_rest().await;
    assert_eq!(setup.tally(), (256, 1, 0));
    assert!(setup.world.pushed.lock().unwrap().len() < 20);
    assert_eq!(setup.metrics.grpc_circuitbreaker_open.with_label_values(&["b"]).get(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_nearly_late_does_not_cut_the_call_of_the_others_short() {
    let mut setup = Setup::of_fleet(3);
    *setup.world.push.lock().unwrap() = Does::TakesItsTime;
    let old = setup.target(clock::now(), 1, 0);
    tokio::time::sleep(Duration::from_millis(4600)).await;
    let fresh = setup.target(clock::now(), 1, 0);
    for target in [old, fresh] {
        setup.forwarder.forward(&record("b"), target);
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(setup.tally(), (1, 1, 0));
}

// ---- left to other pods
// ----------------------------------------------------------------------------------------------------------

impl Setup {
    /// Peers that this pod knows to live.
    fn know(&self, peers: &[&str]) {
        peers.iter().for_each(|peer| self.directory.meet(&record(peer)));
    }
}

#[tokio::test(start_paused = true)]
async fn g2_who_reaches_none_of_its_peers_keeps_no_event_that_another_pod_may_bring_them() {
    for does in [Does::IsCut, Does::Hangs] {
        let mut setup = Setup::of_fleet(3);
        setup.know(&["b", "c"]);
        setup.world.set(does);
        let started = Instant::now();
        setup.forward("b");
        setup.forward("c");
        for _ in 0..2 {
            assert_eq!(setup.settled.recv().await.unwrap().settlement, Settlement::Retry(Duration::ZERO), "{does:?}");
        }
        assert!(started.elapsed() <= 2 * SLOW, "{does:?}: {:?}", started.elapsed());
        let outcome = setup.outcome(clock::now(), PASSES + 1).await;
        assert_eq!(outcome, Settlement::Retry(retry_delay(PASSES + 1, 3)), "not without end");
        assert_eq!(setup.metrics.events_passed_on_total.get(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_is_followed_by_another() {
    let mut setup = Setup::of_fleet(3);
    setup.know(&["b", "c"]);
    setup.world.set(Does::IsCut);
    let open_for = testing::config().app.grpc_circuitbreaker_open_duration;
    for _ in 0..3 {
        setup.outcome(clock::now(), PASSES + 1).await;
    }
    tokio::time::sleep(open_for).await;
    setup.world.set(Does::Hangs);
    setup.forward("c");
    setup.forward("b");
    for _ in 0..2 {
        assert_eq!(setup.settled.recv().await.unwrap().settlement, Settlement::Retry(Duration::ZERO));
    }
    setup.world.set(Does::Takes);
    tokio::time::sleep(4 * open_for).await;
    assert_eq!(setup.outcome(clock::now(), 1).await, Settlement::Ack);
}

#[tokio::test(start_paused = true)]
async fn an_event_for_the_one_peer_that_is_silent_is_parked_as_ever() {
    let mut setup = Setup::of_fleet(3);
    setup.know(&["b", "c"]);
    setup.world.set(Does::IsCut);
    assert_eq!(setup.outcome(clock::now(), 1).await, Settlement::Retry(retry_delay(1, 1)));
    assert_eq!(setup.metrics.events_passed_on_total.get(), 0);
}
