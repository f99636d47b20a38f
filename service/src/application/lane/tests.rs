use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use super::*;
use crate::{
    application::{
        outcome::{InFlight, Settled},
        ports::{Peers, Settlement, Ticket},
    },
    config::testing,
    domain::{
        event::{Address, Payload, StreamId},
        ids::{ConnectionId, PodId},
    },
    metrics::Metrics,
};

/// Nobody can be reached; calls are counted.
#[derive(Default)]
struct Unreachable {
    calls: Mutex<u32>,
}

#[async_trait]
impl Peers for Unreachable {
    async fn push(&self, _: &PodRecord, _: &[Arc<Event>]) -> Result<Vec<bool>, PeerError> {
        *self.calls.lock().unwrap() += 1;
        Err(PeerError::Unreachable("cut".into()))
    }
    async fn announce_gap(&self, _: &PodRecord, _: Option<&RouteKey>, _: Gap) -> Result<(), PeerError> {
        Err(PeerError::Unreachable("cut".into()))
    }
    async fn holds(&self, _: &PodRecord, _: &[ConnectionId]) -> Result<Vec<bool>, PeerError> {
        Err(PeerError::Unreachable("cut".into()))
    }
    async fn probe(&self, _: &PodRecord) -> Result<(), PeerError> {
        Err(PeerError::Unreachable("cut".into()))
    }
    fn forget(&self, _: &PodId) {}
}

struct Setup {
    peers: Arc<Unreachable>,
    orders: mpsc::Sender<LaneOrder>,
    settled: mpsc::UnboundedReceiver<Settled>,
    outcomes: mpsc::UnboundedSender<Settled>,
}

impl Setup {
    #[expect(clippy::disallowed_methods, reason = "the task ends with the test")]
    fn new(parked: usize) -> Self {
        let peers = Arc::new(Unreachable::default());
        let shared = Shared {
            peers: Arc::clone(&peers) as _,
            config: watch::channel(Arc::new(testing::config())).1,
            limits: Mutex::new(ForwardLimits { budget: Duration::from_secs(5), parked }),
            metrics: Arc::new(Metrics::new().unwrap()),
        };
        let peer = PodRecord { id: PodId::parse("b").unwrap(), address: "b:1".into(), started_at: Duration::ZERO };
        let (orders, receiver) = mpsc::channel(16);
        tokio::spawn(Lane::new(peer, receiver, Arc::new(shared)).run());
        let (outcomes, settled) = mpsc::unbounded_channel();
        Self { peers, orders, settled, outcomes }
    }

    /// Sends one event stored at `stored_at` and delivered so often; what becomes of it.
    async fn outcome(&mut self, stored_at: Duration, deliveries: u64) -> Settlement {
        let event = Event {
            address: Address::parse("wa", "wa.a.b.chats").unwrap(),
            payload: Payload::parse(&Bytes::from_static(b"{}")).unwrap(),
            stream: StreamId(1),
            seq: 1,
            stored_at,
            request_id: None,
            traceparent: None,
        };
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let in_flight =
            InFlight::new((Arc::new(event), None), deliveries, 1, (Ticket("t".into()), permit), self.outcomes.clone());
        self.orders.send(LaneOrder::Forward(in_flight.target(PodId::parse("b").ok()))).await.unwrap();
        drop(in_flight);
        self.settled.recv().await.unwrap().settlement
    }
}

#[tokio::test(start_paused = true)]
async fn g2_an_event_for_an_unreachable_peer_is_tried_twice_and_parked() {
    let mut setup = Setup::new(10);
    assert_eq!(setup.outcome(clock::now(), 1).await, Settlement::Retry(retry_delay(1, 1)));
    assert_eq!(*setup.peers.calls.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn g2_an_event_is_given_up_past_its_tries_its_age_or_the_share_of_the_peer() {
    let mut setup = Setup::new(1);
    let tries = testing::config().app.forward_max_deliveries;
    assert_eq!(setup.outcome(clock::now(), tries).await, Settlement::Terminate);
    let age = testing::config().app.forward_max_age;
    assert_eq!(setup.outcome(clock::now() - age, 1).await, Settlement::Terminate);
    assert!(matches!(setup.outcome(clock::now(), 1).await, Settlement::Retry(_)));
    assert_eq!(setup.outcome(clock::now(), 1).await, Settlement::Terminate);
    // The parked one has been delivered again meanwhile: there is room for another.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(matches!(setup.outcome(clock::now(), 1).await, Settlement::Retry(_)));
}

#[tokio::test(start_paused = true)]
async fn with_an_open_breaker_events_are_parked_at_once_and_nobody_is_called() {
    let mut setup = Setup::new(100);
    for _ in 0..3 {
        setup.outcome(clock::now(), 1).await;
    }
    let before = *setup.peers.calls.lock().unwrap();
    let started = Instant::now();
    setup.outcome(clock::now(), 1).await;
    assert_eq!((*setup.peers.calls.lock().unwrap(), started.elapsed()), (before, Duration::ZERO));
}
