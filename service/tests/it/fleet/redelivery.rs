//! What comes from the stream a second time, and what never comes: redeliveries however late, and consumers that vanish.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use daisi_ws_domain::{gap::Gap, ids::PodId, peer::PodRecord, route::RouteKey};
use daisi_ws_service::{
    config::Config,
    ports::{
        AckToken, Announce, AnnounceError, Announcement, EventSource, Incarnation, Lookup, RawEvent, RouteChange, Routes,
        Settlement, SourceError, SourceLag, SourceLimits, Standing, StoreError,
    },
};

use crate::support::{
    client::{Client, Seen},
    fleet::{Fleet, Wrap, user, without_repair},
};

/// Longer than any delay before a redelivery.
const QUIET: Duration = Duration::from_secs(25);

/// A source whose settlements get lost while the link is half open.
struct HalfOpen {
    inner: Arc<dyn EventSource>,
    open: Arc<AtomicBool>,
}

#[async_trait]
impl EventSource for HalfOpen {
    async fn pull(&self, max: usize) -> Result<Vec<RawEvent>, SourceError> {
        self.inner.pull(max).await
    }
    async fn settle(&self, settlements: Vec<(AckToken, Settlement)>) -> Result<(), SourceError> {
        if self.open.load(Ordering::Relaxed) { self.inner.settle(settlements).await } else { Ok(()) }
    }
    async fn close(&self) {
        self.inner.close().await;
    }
    fn hold(&self, hold: bool) {
        self.inner.hold(hold);
    }
    async fn lag(&self) -> Result<SourceLag, SourceError> {
        self.inner.lag().await
    }
    fn take_missed(&self) -> Option<Gap> {
        self.inner.take_missed()
    }
    fn limits(&self) -> SourceLimits {
        self.inner.limits()
    }
    fn trouble(&self) -> Option<SourceError> {
        self.inner.trouble()
    }
}

/// Routes that are looked up slowly.
struct SlowRoutes {
    inner: Arc<dyn Routes>,
    takes: Duration,
}

#[async_trait]
impl Routes for SlowRoutes {
    async fn apply(&self, pod: &PodId, changes: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
        self.inner.apply(pod, changes).await
    }
    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError> {
        tokio::time::sleep(self.takes).await;
        self.inner.lookup(me, routes).await
    }
    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], prune: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        self.inner.resolve(pods, prune).await
    }
    async fn announce(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError> {
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

/// Few events may be in flight, so that a few hundred others are many.
fn small(config: &mut Config) {
    config.app.nats_max_ack_pending = 100;
    config.app.nats_pull_batch = 50;
}

async fn publish(fleet: &Fleet, subject: &str, count: usize) {
    for _ in 0..count {
        fleet.publish(subject, "{}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How often each event came.
async fn counts(client: &mut Client) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for seq in client.drain_seqs(QUIET).await {
        *counts.entry(seq).or_default() += 1;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn events_parked_for_a_frozen_pod_come_once_however_many_others_it_takes_first() {
    let fleet = Fleet::with(2, small).await;
    // Pod 0 takes all events, and hands over what pod 1 wants.
    fleet.stream.cut(&fleet.pods[1].id, true);
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    let mut other = fleet.connect(1, user("acme", "a2", "other")).await.unwrap();
    fleet.network.freeze(&fleet.pods[1].id, true);
    publish(&fleet, "wa.acme.a1.chats", 20).await;
    // They are in the frozen pod's sockets, and parked.
    while fleet.labelled("dws_events_settled_total", "retried") < 20.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It thaws, and takes others itself before what is parked comes again.
    fleet.network.freeze(&fleet.pods[1].id, false);
    fleet.stream.cut(&fleet.pods[0].id, true);
    fleet.stream.cut(&fleet.pods[1].id, false);
    for _ in 0..1000 {
        fleet.publish("wa.acme.a2.chats", "{}");
    }
    let (far, other) = tokio::join!(counts(&mut far), counts(&mut other));
    assert!(far.len() == 20 && far.values().all(|count| *count == 1), "{far:?}");
    assert_eq!(other.len(), 1000);
    fleet.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn events_whose_settlement_is_lost_on_a_half_open_link_come_once() {
    let mut fleet = Fleet::with(0, small).await;
    let open = Arc::new(AtomicBool::new(true));
    let link = Arc::clone(&open);
    fleet.around_source = Some(Box::new(move |inner| Arc::new(HalfOpen { inner, open: Arc::clone(&link) })));
    fleet.add_pod(None).await;
    fleet.settle().await;
    let mut sari = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    open.store(false, Ordering::Relaxed);
    publish(&fleet, "wa.acme.a1.chats", 60).await;
    open.store(true, Ordering::Relaxed);
    publish(&fleet, "wa.acme.a1.chats", 1000).await;
    let sari = counts(&mut sari).await;
    let twice = sari.values().filter(|count| **count > 1).count();
    assert!(sari.len() == 1060 && twice == 0, "{} came, {twice} of them twice", sari.len());
    assert!(fleet.total("dws_events_duplicate_total") >= 60.0 && fleet.total("dws_events_forgotten_total") == 0.0);
    fleet.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn every_session_is_told_when_the_consumer_passes_over_events() {
    let fleet = Fleet::with(2, without_repair).await;
    let mut clients = Vec::new();
    for pod in 0..2 {
        clients.push(fleet.connect(pod, user("acme", "a1", &format!("user-{pod}"))).await.unwrap());
    }
    for pod in &fleet.pods {
        fleet.stream.cut(&pod.id, true);
    }
    let first = fleet.publish("wa.acme.a1.chats", "{}");
    let last = fleet.publish("wa.acme.a1.chats", "{}");
    fleet.stream.make_consumer_anew();
    for pod in &fleet.pods {
        fleet.stream.cut(&pod.id, false);
    }
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    for client in &mut clients {
        let mut frames = Vec::new();
        for seen in client.drain(Duration::from_secs(5)).await {
            let Seen::Frame(frame, _) = seen else { panic!("{seen:?}") };
            frames.push((frame["type"].clone(), frame["seq"].as_u64(), frame["payload"].clone()));
        }
        let gap = frames.iter().find(|(kind, ..)| kind == "gap").map(|(.., payload)| payload);
        let gap = gap.unwrap_or_else(|| panic!("nobody said anything: {frames:?}"));
        assert_eq!((gap["first_seq"].as_u64(), gap["last_seq"].as_u64()), (Some(first), Some(last)));
        assert!(frames.iter().any(|(_, found, _)| *found == Some(seq)), "{frames:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_wait_for_a_slow_look_up_are_not_delivered_again_meanwhile() {
    let mut fleet = Fleet::start(1).await;
    let slow = |inner| Arc::new(SlowRoutes { inner, takes: Duration::from_secs(9) }) as Arc<dyn Routes>;
    fleet.add_pod(Some(Wrap { locks: None, routes: Some(Box::new(slow)) })).await;
    fleet.settle().await;
    // The slow pod takes all events, and hands over what the other one wants.
    fleet.stream.cut(&fleet.pods[0].id, true);
    let mut far = fleet.connect(0, user("acme", "a1", "far")).await.unwrap();
    let seq = fleet.publish("wa.acme.a1.chats", "{}");
    assert_eq!(far.expect_event().await.seq, seq);
    fleet.all_settled().await;
    let again = (fleet.total("dws_events_redelivered_total"), fleet.labelled("dws_events_settled_total", "retried"));
    // It was left to another pod until the other one said that it takes none.
    let passed_on = fleet.total("dws_events_passed_on_total");
    assert!(again == (passed_on, passed_on) && passed_on <= 5.0, "{again:?}, passed on {passed_on} times");
}
