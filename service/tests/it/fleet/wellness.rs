//! G1, G2, G7: a pod that is slow to bring events where they belong leaves them to others, and nobody waits for it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::{
    client::{Client, Seen},
    far::Way,
    fleet::{Fleet, total, user},
};

const SUBJECT: &str = "wa.acme.a1.chats";
/// From one event to the next.
const PACE: Duration = Duration::from_millis(20);
/// Nobody notices what is late by less.
const UNNOTICED: Duration = Duration::from_millis(250);
/// Longer than it takes to find out, and to ask somebody.
const FOUND_OUT: Duration = Duration::from_millis(600);
/// Longer than it takes to be well again.
const WELL_AGAIN: Duration = Duration::from_secs(3);
/// Longer than a peer's word counts.
const FORGOTTEN: Duration = Duration::from_secs(4);

/// A fleet whose pods have links of their own to the store, each with a session that wants every event.
struct Setup {
    fleet: Fleet,
    links: Vec<Way>,
    clients: Vec<Client>,
    published: Vec<u64>,
    /// What each session was brought, and how many gaps it was told of.
    seen: Vec<Vec<u64>>,
    gaps: Vec<usize>,
}

impl Setup {
    async fn new(pods: usize) -> Self {
        let fleet = Fleet::start(0).await;
        let mut setup =
            Self { fleet, links: Vec::new(), clients: Vec::new(), published: Vec::new(), seen: Vec::new(), gaps: Vec::new() };
        for _ in 0..pods {
            setup.add_pod().await;
        }
        setup.fleet.settle().await;
        setup
    }

    async fn add_pod(&mut self) {
        let way = Way::default();
        let pod = self.fleet.add_pod(Some(way.wrap())).await;
        self.links.push(way);
        self.clients.push(self.fleet.connect(pod, user("acme", "a1", &format!("u{pod}"))).await.unwrap());
        self.seen.push(Vec::new());
        self.gaps.push(0);
    }

    /// So long each way from a pod to the store.
    fn slow_store(&self, pod: usize, way: Duration) {
        self.links[pod].set(way);
    }

    fn isolate(&self, pod: usize, isolated: bool) {
        self.fleet.network.isolate(&self.fleet.pods[pod].id, isolated);
    }

    fn half_open(&self, pod: usize, half_open: bool) {
        let id = &self.fleet.pods[pod].id;
        for peer in self.fleet.pods.iter().filter(|peer| peer.id != *id) {
            self.fleet.network.half_open(id, &peer.id, half_open);
        }
    }

    /// Publishes for so long, one event after the other, and waits for each until these sessions have it. How late the latest
    /// was.
    async fn run(&mut self, time: Duration, waited_for: &[usize]) -> Duration {
        let (until, mut worst) = (Instant::now() + time, Duration::ZERO);
        while Instant::now() < until {
            let started = Instant::now();
            let seq = self.publish();
            self.see(seq, waited_for).await;
            worst = worst.max(started.elapsed());
            sleep(PACE).await;
        }
        worst
    }

    fn publish(&mut self) -> u64 {
        let seq = self.fleet.publish(SUBJECT, "{}");
        self.published.push(seq);
        seq
    }

    async fn see(&mut self, seq: u64, waited_for: &[usize]) {
        for client in waited_for {
            while !self.seen[*client].contains(&seq) {
                let seen = self.clients[*client].next().await;
                self.note(*client, &seen);
            }
        }
    }

    /// Has nobody but this pod ask for events.
    fn only_asks(&self, pod: usize, only: bool) {
        for other in (0..self.fleet.pods.len()).filter(|other| *other != pod) {
            self.fleet.stream.cut(&self.fleet.pods[other].id, only);
        }
    }

    fn note(&mut self, client: usize, seen: &Seen) {
        match seen {
            Seen::Frame(frame, _) if frame["type"] == "event" => self.seen[client].push(frame["seq"].as_u64().unwrap()),
            Seen::Frame(frame, _) if frame["type"] == "gap" => self.gaps[client] += 1,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing is lost without a word, and nothing doubled: after all is over, sessions have each event once, but for those that
    /// were told of a gap.
    async fn finish(mut self) {
        self.fleet.all_settled().await;
        for client in 0..self.clients.len() {
            for seen in self.clients[client].drain(Duration::from_secs(5)).await {
                self.note(client, &seen);
            }
            let mut seen = self.seen[client].clone();
            seen.sort_unstable();
            let before = seen.len();
            seen.dedup();
            assert_eq!(seen.len(), before, "session {client} has something twice");
            let first = self.published.partition_point(|seq| seen.first().is_some_and(|first| seq < first));
            assert!(self.gaps[client] > 0 || seen == self.published[first..], "session {client} lacks something");
        }
    }

    /// Which of these reasons a pod has to leave events to others.
    fn reasons(&self, pod: usize) -> [f64; 2] {
        ["store", "peers"].map(|reason| total(&self.fleet.pods[pod].metrics, "dws_stepped_back", Some(reason)))
    }

    /// So many events a pod took of those published after `seq`.
    fn taken(&self, pod: usize, after: u64) -> usize {
        self.fleet.stream.takes(after).iter().filter(|take| take.pod == self.fleet.pods[pod].id).count()
    }

    fn last(&self) -> u64 {
        *self.published.last().unwrap()
    }
}

const SLOW: Duration = Duration::from_millis(200);
const A_SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_pod_with_a_slow_store_takes_no_events_and_its_sessions_get_theirs_from_others() {
    let mut setup = Setup::new(3).await;
    setup.run(A_SECOND, &[0, 1, 2]).await;
    assert!(setup.taken(0, 0) > 5, "it takes its part");
    setup.slow_store(0, SLOW);
    let worst = setup.run(FOUND_OUT, &[1, 2]).await;
    assert!(worst < UNNOTICED, "{worst:?}");
    let before = setup.last();
    let worst = setup.run(A_SECOND * 5, &[0, 1, 2]).await;
    assert!(worst < PACE, "{worst:?}");
    assert_eq!((setup.taken(0, before), setup.reasons(0)), (0, [1.0, 0.0]));
    setup.slow_store(0, Duration::ZERO);
    setup.run(WELL_AGAIN, &[0, 1, 2]).await;
    let before = setup.last();
    setup.run(A_SECOND, &[0, 1, 2]).await;
    assert!(setup.taken(0, before) > 5 && setup.reasons(0) == [0.0, 0.0], "it takes its part again");
    setup.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_store_hangs_gives_back_what_waits_for_it() {
    let mut setup = Setup::new(3).await;
    setup.run(A_SECOND, &[0, 1, 2]).await;
    setup.slow_store(0, Duration::from_secs(20));
    let worst = setup.run(A_SECOND * 2, &[1, 2]).await;
    assert!(worst < UNNOTICED, "{worst:?}");
    setup.slow_store(0, Duration::ZERO);
    setup.run(A_SECOND * 25, &[1, 2]).await;
    setup.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_cut_off_from_its_peers_takes_events_for_its_own_sessions_and_passes_them_on() {
    for half_open in [false, true] {
        let mut setup = Setup::new(3).await;
        setup.run(A_SECOND, &[0, 1, 2]).await;
        let cut = |setup: &Setup, cut| if half_open { setup.half_open(0, cut) } else { setup.isolate(0, cut) };
        cut(&setup, true);
        let worst = setup.run(A_SECOND * 4, &[1, 2]).await;
        assert!(worst < UNNOTICED, "half open {half_open}: {worst:?}");
        assert_eq!(setup.reasons(0), [0.0, 1.0], "half open {half_open}");
        assert_eq!((setup.reasons(1), setup.reasons(2)), ([0.0; 2], [0.0; 2]), "one of two proves nothing");
        cut(&setup, false);
        setup.run(WELL_AGAIN, &[1, 2]).await;
        // A call that began before the link was whole may still end without an answer, and count anew.
        for _ in 0..5 {
            if setup.reasons(0) == [0.0; 2] {
                break;
            }
            setup.run(A_SECOND, &[1, 2]).await;
        }
        assert_eq!(setup.reasons(0), [0.0; 2], "half open {half_open}");
        setup.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_to_a_pod_that_is_cut_off_is_passed_on_again() {
    let mut setup = Setup::new(3).await;
    setup.run(A_SECOND, &[0, 1, 2]).await;
    setup.isolate(0, true);
    setup.run(FOUND_OUT, &[1, 2]).await;
    for _ in 0..20 {
        // Long enough for three times: so often in a row the stream may well choose the same pod of three.
        let (begun, moment) = (Instant::now(), Duration::from_millis(13));
        setup.only_asks(0, true);
        let seq = setup.publish();
        sleep(moment).await;
        setup.only_asks(0, false);
        setup.see(seq, &[1, 2]).await;
        assert!(begun.elapsed() < moment + PACE, "{:?}", begun.elapsed());
        sleep(PACE).await;
    }
    setup.isolate(0, false);
    setup.run(WELL_AGAIN, &[1, 2]).await;
    setup.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_passed_on_does_not_wait_for_the_routes_of_what_is_not() {
    let mut setup = Setup::new(3).await;
    setup.run(A_SECOND, &[0, 1, 2]).await;
    setup.isolate(0, true);
    setup.run(FOUND_OUT, &[1, 2]).await;
    setup.slow_store(0, A_SECOND);
    setup.only_asks(0, true);
    let kept = setup.publish();
    // By then it has come back too often.
    sleep(Duration::from_millis(50)).await;
    setup.only_asks(0, false);
    let worst = setup.run(A_SECOND * 2, &[1, 2]).await;
    assert!(worst < PACE && setup.taken(0, kept) > 5, "{worst:?}");
    setup.slow_store(0, Duration::ZERO);
    setup.isolate(0, false);
    setup.run(WELL_AGAIN, &[1, 2]).await;
    setup.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_pod_whose_links_flap() {
    let mut setup = Setup::new(3).await;
    setup.run(A_SECOND, &[0, 1, 2]).await;
    for _ in 0..10 {
        setup.isolate(0, true);
        let worst = setup.run(Duration::from_millis(400), &[1, 2]).await;
        assert!(worst < UNNOTICED, "{worst:?}");
        setup.isolate(0, false);
        let worst = setup.run(Duration::from_millis(400), &[1, 2]).await;
        assert!(worst < UNNOTICED, "{worst:?}");
    }
    setup.run(WELL_AGAIN, &[1, 2]).await;
    setup.finish().await;
}

#[tokio::test(start_paused = true)]
async fn where_the_store_is_slow_for_all_nobody_steps_back() {
    for pods in [2, 3] {
        let mut setup = Setup::new(pods).await;
        let all: Vec<usize> = (0..pods).collect();
        setup.run(A_SECOND, &all).await;
        all.iter().for_each(|pod| setup.slow_store(*pod, SLOW));
        setup.run(A_SECOND, &all).await;
        let before = setup.last();
        let worst = setup.run(A_SECOND * 10, &all).await;
        assert!(worst < 3 * SLOW, "{worst:?}");
        let taken: Vec<usize> = all.iter().map(|pod| setup.taken(*pod, before)).collect();
        assert!(taken.iter().filter(|taken| **taken > 0).count() > 1, "{taken:?}");
        assert!(all.iter().all(|pod| setup.reasons(*pod) == [0.0; 2]));
        setup.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g7_events_flow_while_the_store_is_frozen_for_all() {
    let mut setup = Setup::new(3).await;
    setup.run(A_SECOND, &[0, 1, 2]).await;
    setup.fleet.store.set_frozen(true);
    setup.run(A_SECOND * 2, &[0, 1, 2]).await;
    let before = setup.last();
    setup.run(A_SECOND * 5, &[0, 1, 2]).await;
    assert!((0..3).all(|pod| setup.taken(pod, before) > 0));
    setup.fleet.store.set_frozen(false);
    setup.run(WELL_AGAIN, &[0, 1, 2]).await;
    setup.finish().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_pods_the_one_with_the_slow_store_steps_back_until_the_other_is_not_heard_of_any_more() {
    let mut setup = Setup::new(2).await;
    setup.run(A_SECOND, &[0, 1]).await;
    setup.slow_store(0, SLOW);
    setup.run(FOUND_OUT, &[1]).await;
    let before = setup.last();
    setup.run(A_SECOND, &[0, 1]).await;
    assert_eq!((setup.taken(0, before), setup.reasons(0)), (0, [1.0, 0.0]));
    // The other one is gone, and nobody else takes what it leaves.
    setup.fleet.kill(1);
    sleep(FORGOTTEN).await;
    let before = setup.last();
    setup.run(A_SECOND, &[0]).await;
    assert!(setup.taken(0, before) > 0, "somebody has to take events");
}

#[tokio::test(start_paused = true)]
async fn of_two_pods_that_do_not_reach_each_other_none_leaves_anything_to_the_other() {
    let mut setup = Setup::new(2).await;
    setup.run(A_SECOND, &[0, 1]).await;
    setup.isolate(0, true);
    for _ in 0..50 {
        setup.publish();
        sleep(PACE).await;
    }
    assert_eq!((setup.reasons(0), setup.reasons(1)), ([0.0; 2], [0.0; 2]));
    setup.isolate(0, false);
    setup.run(WELL_AGAIN, &[]).await;
    setup.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_joins_beside_one_that_steps_back_gets_its_events() {
    let mut setup = Setup::new(3).await;
    setup.slow_store(0, SLOW);
    setup.run(FOUND_OUT, &[1, 2]).await;
    setup.add_pod().await;
    let worst = setup.run(A_SECOND * 3, &[0, 1, 2, 3]).await;
    assert!(worst < UNNOTICED, "{worst:?}");
    setup.slow_store(0, Duration::ZERO);
    setup.run(WELL_AGAIN, &[0, 1, 2, 3]).await;
    setup.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_frozen_pod_makes_nobody_step_back() {
    let mut setup = Setup::new(3).await;
    setup.run(A_SECOND, &[0, 1, 2]).await;
    setup.fleet.freeze(2, true);
    for _ in 0..100 {
        setup.publish();
        sleep(PACE).await;
        assert_eq!((setup.reasons(0), setup.reasons(1)), ([0.0; 2], [0.0; 2]));
    }
    setup.fleet.freeze(2, false);
    setup.run(A_SECOND, &[0, 1]).await;
    setup.finish().await;
}
