//! A session moves from one pod to another, whatever the first is able to say about it.

use std::time::Duration;

use daisi_ws_fleet::{
    containers::cluster::{Cluster, Options},
    faults::container,
    identity::{Kind, Subject, Who},
    proxy::Mode,
    traffic::{client::Client, ledger::Seen, publisher::Publisher},
};
use daisi_ws_testbed::wait;
use tokio::time::Instant;

/// A takeover waits for no TTL: it takes the lock after a few tries.
const TAKEOVER: Duration = Duration::from_secs(5);
/// Longest wait until the old socket is closed, once its pod can be told.
const TOLD: Duration = Duration::from_secs(20);

/// A session on the first pod, which then comes again on the second while this was done to the first.
struct Moved {
    cluster: Cluster,
    old: Client,
    new: Client,
}

fn sari() -> Who {
    Who::User { company: "acme".into(), agent: "a1".into(), user: "sari".into(), chat: Some("c1".into()) }
}

impl Moved {
    async fn after(break_it: impl AsyncFnOnce(&Cluster)) -> Self {
        let cluster = Cluster::start(Options::pods(3)).await.unwrap();
        let token = cluster.pods[0].token(&sari()).await.unwrap();
        let old = Client::start(sari(), token.clone(), vec![cluster.pods[0].shared_ip()]);
        old.ready().await.unwrap();
        break_it(&cluster).await;
        let began = Instant::now();
        let new = Client::start(sari(), token, vec![cluster.pods[1].shared_ip()]);
        new.ready().await.unwrap();
        assert!(began.elapsed() < TAKEOVER, "the takeover took {:?}", began.elapsed());
        let moved = Self { cluster, old, new };
        moved.lock_is_the_new_ones().await;
        moved
    }

    async fn lock_is_the_new_ones(&self) {
        let owner = self.cluster.redis_cli(&["get", "session:acme:a1:sari"]).await.unwrap();
        assert!(owner.starts_with("pod-b/"), "{owner}");
    }

    /// The old socket is told that it was replaced, and the lock stays the new one's.
    async fn the_old_one_is_closed(&self) {
        wait::until("the old socket is closed with 4402", TOLD, || {
            std::future::ready(self.old.look(|entries| entries.iter().any(|entry| entry.seen == Seen::Closed(Some(4402)))))
        })
        .await
        .unwrap();
        self.lock_is_the_new_ones().await;
    }

    /// The new session, and only it, gets what is published from now on.
    async fn the_new_one_is_served(&self) {
        let publisher = Publisher::connect(&self.cluster.nats_url()).await.unwrap();
        for kind in [Kind::Chats, Kind::Messages("c1".into())] {
            for _ in 0..5 {
                let subject = Subject { company: "acme".into(), agent: "a1".into(), kind: kind.clone() };
                let seq = publisher.store(&subject).await.seq;
                let its = |seen: &Seen| matches!(seen, Seen::Event { seq: got, .. } if *got == seq);
                self.new.sees("the event arrives", its).await.unwrap();
                assert!(!self.old.look(|entries| entries.iter().any(|entry| its(&entry.seen))), "the old socket is served too");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn from_a_pod_that_is_well() {
    let moved = Moved::after(async |_| {}).await;
    moved.the_old_one_is_closed().await;
    moved.the_new_one_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn from_a_pod_that_was_killed() {
    let moved = Moved::after(async |cluster| container::kill(&cluster.pods[0].container).await.unwrap()).await;
    assert!(moved.old.look(|entries| entries.iter().any(|entry| entry.seen == Seen::Closed(None))));
    moved.the_new_one_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn from_a_pod_that_is_frozen() {
    let moved = Moved::after(async |cluster| container::freeze(&cluster.pods[0].container).await.unwrap()).await;
    moved.the_new_one_is_served().await;
    container::thaw(&moved.cluster.pods[0].container).await.unwrap();
    moved.the_old_one_is_closed().await;
    moved.the_new_one_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn from_a_pod_that_is_cut_off_from_redis_only() {
    let moved = Moved::after(async |cluster| cluster.redis_link(&cluster.pods[0], Mode::Cut)).await;
    // Nobody can tell it by Redis. It hears of it when it is back.
    moved.cluster.heal();
    moved.the_old_one_is_closed().await;
    moved.the_new_one_is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn from_a_pod_that_is_cut_off_from_its_peers_only() {
    let moved = Moved::after(async |cluster| cluster.peer_links(&cluster.pods[0], Mode::Cut).unwrap()).await;
    // Kills go by Redis: it is told at once.
    moved.the_old_one_is_closed().await;
    moved.cluster.heal();
    moved.the_new_one_is_served().await;
}
