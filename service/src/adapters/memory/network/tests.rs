//! The faults, on paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use daisi_ws_domain::{
    gap::{Gap, GapCause},
    route::RouteKey,
};
use tokio::time::Instant;

use super::*;

#[derive(Default)]
struct Counter(AtomicUsize);

impl PeerService for Counter {
    fn deliver(&self, _: &PodId, events: Vec<Event>) -> Vec<Handed> {
        vec![Handed::Taken; events.len()]
    }

    fn holds(&self, sockets: &[ConnectionId]) -> Vec<bool> {
        vec![false; sockets.len()]
    }

    fn evict(&self, _: &Kill) -> Evicted {
        Evicted::Gone
    }

    fn gap(&self, _: &PodId, _: Option<&RouteKey>, gap: Gap) -> usize {
        assert!(gap.dropped != Some(13), "on purpose");
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn load(&self) -> PodLoad {
        PodLoad::default()
    }

    fn introduce(&self, _: &PodRecord) -> Vec<PodRecord> {
        Vec::new()
    }
}

fn record(id: &str) -> PodRecord {
    PodRecord { id: PodId::parse(id).unwrap(), address: format!("{id}:1"), started_at: Duration::ZERO }
}

fn pair() -> (Network, NetworkHandle, PodRecord, Arc<Counter>) {
    let (network, b, counter) = (Network::new(), record("b"), Arc::new(Counter::default()));
    network.register(&b, counter.clone());
    let handle = network.handle(PodId::parse("a").unwrap());
    (network, handle, b, counter)
}

const GAP: Gap = Gap { dropped: None, first_seq: None, last_seq: None, cause: GapCause::GivenUp };
const GAPS: [RouteGap; 1] = [RouteGap { route: None, gap: GAP }];

#[tokio::test(start_paused = true)]
async fn a_frozen_pod_gets_what_was_sent_even_if_the_caller_gave_up() {
    let (network, handle, b, counter) = pair();
    network.freeze(&b.id, true);
    let given_up = timeout(Duration::from_millis(100), handle.announce_gaps(&b, &GAPS)).await;
    assert!(given_up.is_err());
    assert!(matches!(handle.probe(&b).await, Err(PeerError::TimedOut)));
    assert!(matches!(handle.announce_gaps(&b, &GAPS).await, Err(PeerError::Unreachable(_))));
    assert_eq!(counter.0.load(Ordering::SeqCst), 0);
    network.freeze(&b.id, false);
    assert_eq!(counter.0.load(Ordering::SeqCst), 2);
    handle.announce_gaps(&b, &GAPS).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_frozen_pod_is_answered_when_it_thaws() {
    let (network, handle, b, _) = pair();
    network.freeze(&b.id, true);
    let thaw = async {
        sleep(Duration::from_secs(1)).await;
        network.freeze(&b.id, false);
    };
    let (answer, ()) = futures_util::future::join(handle.announce_gaps(&b, &GAPS), thaw).await;
    answer.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_frozen_pod_leave_when_it_thaws() {
    let (network, handle, b, counter) = pair();
    let me = PodId::parse("a").unwrap();
    network.freeze(&me, true);
    let thaw = async {
        sleep(Duration::from_secs(60)).await;
        assert_eq!(counter.0.load(Ordering::SeqCst), 0);
        network.freeze(&me, false);
    };
    let (answer, ()) = futures_util::future::join(handle.announce_gaps(&b, &GAPS), thaw).await;
    answer.unwrap();
}

#[tokio::test(start_paused = true)]
async fn cut_and_isolated_links_fail_both_ways_until_mended() {
    let (network, a, b, counter) = pair();
    let me = record("a");
    network.register(&me, counter);
    let back = network.handle(b.id.clone());
    let cut = |on| network.cut(&me.id, &b.id, on);
    let isolate = |on| network.isolate(&b.id, on);
    let switches: [&dyn Fn(bool); 2] = [&cut, &isolate];
    for switch in switches {
        switch(true);
        let before = Instant::now();
        assert!(matches!(a.announce_gaps(&b, &GAPS).await, Err(PeerError::Unreachable(_))));
        assert_eq!(before.elapsed(), CUT_NOTICED);
        assert!(matches!(back.announce_gaps(&me, &GAPS).await, Err(PeerError::Unreachable(_))));
        switch(false);
        a.announce_gaps(&b, &GAPS).await.unwrap();
        back.announce_gaps(&me, &GAPS).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_pod_is_unreachable_at_once_and_calls_nobody_until_it_registers_again() {
    let (network, a, b, counter) = pair();
    network.register(&record("a"), counter.clone());
    network.kill(&b.id);
    let before = Instant::now();
    assert!(matches!(a.probe(&b).await, Err(PeerError::Unreachable(_))));
    assert!(matches!(network.handle(b.id.clone()).probe(&record("a")).await, Err(PeerError::Unreachable(_))));
    assert_eq!(before.elapsed(), Duration::ZERO);
    network.register(&b, counter);
    a.probe(&b).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_frozen_pod_that_is_killed_loses_what_it_was_sent() {
    let (network, a, b, counter) = pair();
    network.freeze(&b.id, true);
    let kill = async {
        sleep(Duration::from_secs(1)).await;
        network.kill(&b.id);
    };
    let (answer, ()) = futures_util::future::join(a.announce_gaps(&b, &GAPS), kill).await;
    assert!(matches!(answer, Err(PeerError::Unreachable(_))));
    network.freeze(&b.id, false);
    assert_eq!(counter.0.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_delay_holds_for_every_call_and_a_panic_is_the_calls_own() {
    let (network, a, b, _) = pair();
    network.delay(Duration::from_millis(200));
    let before = Instant::now();
    a.probe(&b).await.unwrap();
    assert_eq!(before.elapsed(), Duration::from_millis(200));
    let bad = [RouteGap { route: None, gap: Gap { dropped: Some(13), ..GAP } }];
    assert!(matches!(a.announce_gaps(&b, &bad).await, Err(PeerError::Failed(_))));
    a.announce_gaps(&b, &GAPS).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_half_open_link_swallows_calls_until_that_is_noticed() {
    let (network, a, b, counter) = pair();
    let me = PodId::parse("a").unwrap();
    network.half_open(&me, &b.id, true);
    let before = Instant::now();
    assert!(matches!(a.announce_gaps(&b, &GAPS).await, Err(PeerError::Unreachable(_))));
    assert_eq!(before.elapsed(), FREEZE_NOTICED);
    network.half_open(&me, &b.id, false);
    assert_eq!(counter.0.load(Ordering::SeqCst), 0);
    a.announce_gaps(&b, &GAPS).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_another_fleet_is_refused_and_answers_probes() {
    let (network, a, b, counter) = pair();
    network.estrange(&b.id, true);
    assert!(matches!(a.announce_gaps(&b, &GAPS).await, Err(PeerError::Refused(_))));
    a.probe(&b).await.unwrap();
    assert_eq!(counter.0.load(Ordering::SeqCst), 0);
}
