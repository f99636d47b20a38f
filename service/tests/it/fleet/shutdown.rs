//! In what order a pod ends.

use std::{
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

use crate::support::fleet::{Fleet, user};

/// Keeps the stage that each line names.
#[derive(Clone, Default)]
struct Stages(Arc<Mutex<Vec<String>>>);

impl Visit for Stages {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "drain.stage" {
            self.0.lock().unwrap().push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S: Subscriber> Layer<S> for Stages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_pod_ends_stage_by_stage_and_serves_its_peers_until_it_is_empty() {
    let fleet = Fleet::start(2).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let (stages, at) = (Stages::default(), &fleet.pods[0]);
    let _recording = tracing::subscriber::set_default(tracing_subscriber::registry().with(stages.clone()));
    let (within, started, hard) = (Duration::from_secs(30), Instant::now(), at.tasks.shutdown().hard.clone());
    let peers = async {
        at.pod.sequence().peers().cancelled().await;
        assert!(at.pod.hub().is_empty() && at.tasks.shutdown().soft.is_cancelled() && !hard.is_cancelled());
        stages.0.lock().unwrap().push("peers are let go".to_owned());
        Ok::<(), ()>(())
    };
    let peers = pin!(peers.fuse());
    let (ended, closed) = tokio::join!(at.pod.end(peers, &at.tasks, within), client.expect_close());
    assert_eq!((ended, closed, hard.is_cancelled(), at.tasks.running()), (Ok(()), Some(1001), true, 0));
    assert!(started.elapsed() < within, "{:?}", started.elapsed());
    let order = [
        "entrance",
        "pulling",
        "events",
        "sockets",
        "locks and routes",
        "announcing",
        "membership",
        "server for peers",
        "server for browsers",
        "peers are let go",
        "everything",
    ];
    assert_eq!(*stages.0.lock().unwrap(), order);
    fleet.network.kill(&at.id);
}
