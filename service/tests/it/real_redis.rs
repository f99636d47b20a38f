//! Two pods on one real Redis, with memory for all else: what its restart from a snapshot does to sessions.

use std::sync::Arc;

use daisi_ws_domain::{close::CloseReason, ids::PodId, peer::PodRecord};
use daisi_ws_service::{
    adapters::memory::{
        network::Network,
        stream::{Stream, StreamOptions},
    },
    application::admission::connect::Admission,
    pod::{Backends, Pod},
    readiness::Readiness,
    runtime::{clock, fine_timer::FineTimer, lifecycle::Tasks, workers::Workers},
};
use redis::AsyncCommands as _;
use tokio::sync::watch;

use crate::support::{
    config::test_config,
    fleet::user,
    redis::{RedisServer, tasks},
    wait,
};

struct Pods {
    pods: Vec<(Pod, Tasks)>,
    server: RedisServer,
    workers: Workers,
}

impl Pods {
    async fn start(count: usize) -> Self {
        let server = RedisServer::start().await;
        let (network, stream) = (Network::new(), Stream::new(StreamOptions::default()));
        let mut pods = Vec::new();
        for n in 0..count {
            let (tasks, id) = (tasks(), PodId::parse(&format!("pod-{n}")).unwrap());
            let store = Arc::new(server.store());
            let stream = Arc::new(stream.handle(id.clone()));
            let backends = Backends {
                locks: Arc::clone(&store) as _,
                routes: Arc::clone(&store) as _,
                kills: store,
                source: Arc::clone(&stream) as _,
                replay: stream,
                peers: Arc::new(network.handle(id.clone())),
                timer: Arc::new(FineTimer::of_the_runtime()),
            };
            let me = PodRecord { id: id.clone(), address: format!("{id}:50051"), started_at: clock::now() };
            let config = watch::Sender::new(Arc::new(test_config())).subscribe();
            let pod = Pod::start(&me, &config, &backends, Readiness::default(), &tasks, &Arc::clone(tasks.metrics()));
            network.register(&me, pod.peer_service());
            pods.push((pod, tasks));
        }
        for (pod, _) in &pods {
            pod.joined().await;
            wait::until("all know each other", || async { pod.directory().fleet_size() == count }).await;
        }
        let client = server.client().await;
        wait::until("all listen for kills", || {
            let mut client = client.clone();
            async move { redis::cmd("PUBSUB").arg("NUMPAT").query_async::<usize>(&mut client).await.unwrap() >= 1 }
        })
        .await;
        Self { pods, server, workers: Workers::start(1).unwrap() }
    }

    async fn connect(&self, pod: usize) -> Admission {
        self.pods[pod]
            .0
            .connector()
            .connect(
                user("acme", "a1", "sari"),
                daisi_ws_service::application::admission::connect::Wishes::default(),
                "test",
                self.workers.first(),
            )
            .await
            .unwrap()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.pods.iter().for_each(|(_, tasks)| tasks.shutdown().hard.cancel());
    }
}

#[tokio::test]
async fn the_newest_socket_keeps_its_session_when_redis_comes_back_with_the_lock_of_an_older() {
    for (before, after) in [(0, 1), (0, 0)] {
        let mut fleet = Pods::start(2).await;
        let old = fleet.connect(before).await;
        fleet.server.save().await;
        let new = fleet.connect(after).await;
        wait::until("the old one is told to go", || async { old.session().close_reason() == Some(CloseReason::SessionReplaced) })
            .await;
        drop(old);
        fleet.server.start_again().await;
        let (client, mine) = (fleet.server.client().await, new.session().owner().to_string());
        wait::until("the lock is the newest's again", || {
            let mut client = client.clone();
            let mine = &mine;
            async move { client.get::<_, Option<String>>("session:acme:a1:sari").await.unwrap().as_ref() == Some(mine) }
        })
        .await;
        assert_eq!(new.session().close_reason(), None);
    }
}
