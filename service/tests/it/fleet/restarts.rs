//! G8: pods that go while events flow. Clients come back elsewhere within a second, and nothing that happens meanwhile is
//! nobody's.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use crate::support::{
    client::{Client, Seen},
    fleet::{Fleet, user},
};

const DRAIN: Duration = Duration::from_secs(27);

/// A user with a browser that comes back after a socket has ended: to another pod, after a moment.
struct Returning {
    name: String,
    pod: usize,
    client: Client,
    seen: Vec<u64>,
    chance: StdRng,
}

impl Returning {
    async fn start(fleet: &Fleet, pod: usize, n: u64) -> Self {
        let name = format!("u{n}");
        let client = fleet.connect(pod, user("acme", "a1", &name)).await.unwrap();
        Self { name, pod, client, seen: Vec::new(), chance: StdRng::seed_from_u64(n) }
    }

    /// Reads until all that is `expected` has come, and comes back whenever its socket ends. Pods of `fleet` but its own are
    /// good.
    async fn run(&mut self, fleet: &Fleet, expected: &BTreeSet<u64>, until: Instant) {
        while !self.has_all(expected) {
            match tokio::time::timeout_at(until, self.client.next()).await {
                Ok(Seen::Frame(frame, _)) => self.seen.extend(frame["seq"].as_u64()),
                Ok(Seen::Closed(_)) => {
                    tokio::time::sleep(Duration::from_millis(self.chance.random_range(100..1000))).await;
                    let before = self.pod;
                    while self.pod == before {
                        self.pod = self.chance.random_range(0..fleet.pods.len());
                    }
                    self.client = fleet.connect(self.pod, user("acme", "a1", &self.name)).await.unwrap();
                }
                Err(_) => return,
            }
        }
    }

    fn has_all(&self, expected: &BTreeSet<u64>) -> bool {
        self.seen.len() >= expected.len() && expected.iter().all(|seq| self.seen.contains(seq))
    }

    fn missed(&self, expected: &BTreeSet<u64>) -> Vec<u64> {
        expected.iter().copied().filter(|seq| !self.seen.contains(seq)).collect()
    }
}

/// Publishes for so long, fifty a second.
async fn publish_for(fleet: &Fleet, time: Duration) -> BTreeSet<u64> {
    let until = Instant::now() + time;
    let mut published = BTreeSet::new();
    while Instant::now() < until {
        published.insert(fleet.publish("wa.acme.a1.chats", "{}"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    published
}

/// Users on a pod that goes by `end`, and others elsewhere, while events flow: who missed what.
async fn misses_while(fleet: &Fleet, end: impl AsyncFn(&Fleet)) -> Vec<Vec<u64>> {
    let mut users = Vec::new();
    for n in 0..12 {
        users.push(Returning::start(fleet, if n < 8 { 0 } else { 1 + n as usize % 2 }, n).await);
    }
    // What a test publishes is known only in the end; until then, everybody reads.
    let until = Instant::now() + Duration::from_secs(30);
    let nothing_is_all: BTreeSet<u64> = std::iter::once(u64::MAX).collect();
    let goes = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        end(fleet).await;
    };
    let reading = join_all(users.iter_mut().map(|user| user.run(fleet, &nothing_is_all, until)));
    let (published, (), _) = tokio::join!(publish_for(fleet, Duration::from_secs(10)), goes, reading);
    users
        .iter()
        .map(|user| {
            let once: BTreeSet<u64> = user.seen.iter().copied().collect();
            assert_eq!(once.len(), user.seen.len(), "{} saw something twice", user.name);
            user.missed(&published)
        })
        .collect()
}

async fn drain(fleet: &Fleet) {
    fleet.pods[0].pod.drain(DRAIN).await;
    fleet.pods[0].tasks.shutdown().hard.cancel();
    fleet.network.kill(&fleet.pods[0].id);
}

#[tokio::test(start_paused = true)]
async fn g8_nothing_is_nobodys_while_the_sessions_of_a_pod_that_drains_are_between_pods() {
    let fleet = Fleet::start(3).await;
    let missed = misses_while(&fleet, drain).await;
    assert!(missed.iter().all(Vec::is_empty), "{missed:?}");
    fleet.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn g8_what_a_session_wants_that_never_comes_back_is_nobodys_after_a_moment() {
    let fleet = Fleet::start(2).await;
    let mut gone = fleet.connect(0, user("acme", "a1", "gone")).await.unwrap();
    let mut stays = fleet.connect(1, user("acme", "a1", "stays")).await.unwrap();
    let started = Instant::now();
    let meanwhile = async {
        assert_eq!(gone.expect_close().await, Some(1001));
        let published: Vec<u64> = (0..20).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
        // Who is there has them at once, and once.
        assert_eq!(stays.expect_events(20).await, published);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        fleet.all_settled().await;
        started.elapsed()
    };
    let ((), settled) = tokio::join!(fleet.pods[0].pod.drain(DRAIN), meanwhile);
    assert!((Duration::from_secs(2)..Duration::from_secs(6)).contains(&settled), "{settled:?}");
    stays.expect_silence(Duration::from_secs(5)).await;
    assert_eq!(fleet.labelled("dws_events_settled_total", "given_up"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn g8_the_sessions_that_a_drain_has_still_to_close_get_their_events_at_once_and_those_before_them_theirs_elsewhere() {
    let fleet = Fleet::start(2).await;
    let mut clients = Vec::new();
    for n in 0..250 {
        clients.push(fleet.connect(0, user("acme", "a1", &format!("u{n}"))).await.unwrap());
    }
    let started = Instant::now();
    let meanwhile = async {
        // The first batch is told at once, the last a second later.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seq = fleet.publish("wa.acme.a1.chats", "{}");
        let mut elsewhere = Vec::new();
        for (n, client) in clients.iter_mut().enumerate() {
            match client.next().await {
                Seen::Frame(frame, _) => assert_eq!(frame["seq"].as_u64(), Some(seq)),
                Seen::Closed(_) => elsewhere.push(fleet.connect(1, user("acme", "a1", &format!("u{n}"))).await.unwrap()),
            }
        }
        assert!((50..200).contains(&elsewhere.len()), "{}", elsewhere.len());
        for client in &mut elsewhere {
            assert_eq!(client.expect_event().await.seq, seq);
        }
    };
    tokio::join!(fleet.pods[0].pod.drain(DRAIN), meanwhile);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
