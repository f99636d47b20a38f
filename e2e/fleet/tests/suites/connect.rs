//! Who is let in.

use std::time::Duration;

use daisi_ws_fleet::{
    containers::{
        cluster::{Cluster, Options},
        docker::docker,
        pod::{API_KEY, MINT_KEY},
    },
    faults::container,
    identity::{Kind, Subject, Who},
    traffic::{
        client::{self, Client},
        ledger::Seen,
        publisher::Publisher,
    },
};
use daisi_ws_testbed::wait;
use tokio::time::Instant;

/// Largest image.
const IMAGE_BYTES: u64 = 22_000_000;
/// Longest start of the program, on a machine that may be busy.
const START: Duration = Duration::from_secs(2);

fn sari() -> Who {
    Who::User { company: "acme".into(), agent: "a1".into(), user: "sari".into(), chat: None }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn only_who_holds_the_key_and_a_token_of_this_path_is_let_in() {
    let cluster = Cluster::start(Options::pods(1)).await.unwrap();
    let (pod, who) = (&cluster.pods[0], sari());
    let token = pod.token(&who).await.unwrap();
    let admin = pod.token(&Who::Admin { admin: "root".into(), company: None }).await.unwrap();
    let http = pod.http().unwrap();
    let mut forged = token.clone().into_bytes();
    forged[20] = if forged[20] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for (path, token, key, status) in [
        ("/ws/acme/a1", token.as_str(), "wrong-key-wrong-key", Some(401)),
        ("/ws/acme/a1", &token, MINT_KEY, Some(401)),
        ("/ws/acme/a1", "", API_KEY, Some(403)),
        ("/ws/acme/a1", &forged, API_KEY, Some(403)),
        ("/ws/acme/a2", &token, API_KEY, Some(403)),
        ("/ws/other/a1", &token, API_KEY, Some(403)),
        ("/ws/acme/a1", &admin, API_KEY, Some(403)),
        ("/ws/admin", &token, API_KEY, Some(403)),
        ("/ws/acme/a1", &token, API_KEY, None),
        ("/ws/admin", &admin, API_KEY, None),
    ] {
        assert_eq!(client::refusal(http, path, token, key).await, status, "{path} with key {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn the_image_holds_no_shell_and_runs_as_nobody_in_a_read_only_root() {
    let cluster = Cluster::start(Options::pods(1)).await.unwrap();
    let container = &cluster.pods[0].container;
    let shell = docker(&["exec", container, "/bin/sh", "-c", "true"]).await;
    assert!(shell.is_err(), "there is a shell");
    let user = docker(&["inspect", "--format", "{{.Config.User}}", container]).await.unwrap();
    assert!(user.starts_with(|c: char| c.is_ascii_digit() && c != '0'), "the user is {user:?}");
    // The health check of the image, as the engine runs it.
    docker(&["exec", container, "/bin/daisi-ws-service", "healthcheck"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn the_image_is_small_and_up_at_once() {
    let cluster = Cluster::start(Options::pods(1)).await.unwrap();
    let pod = &cluster.pods[0];
    let image = docker(&["inspect", "--format", "{{.Image}}", &pod.container]).await.unwrap();
    let bytes: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", &image]).await.unwrap().parse().unwrap();
    assert!(bytes < IMAGE_BYTES, "{bytes} bytes");
    container::kill(&pod.container).await.unwrap();
    container::start(&pod.container).await.unwrap();
    let started = Instant::now();
    pod.find().await.unwrap();
    wait::until("the pod lives", START, || async { pod.status("/health").await == Some(200) }).await.unwrap();
    eprintln!("{bytes} bytes, up after {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn one_subject_taken_by_one_pod_keeps_its_order() {
    let cluster = Cluster::start(Options::pods(1)).await.unwrap();
    let who = sari();
    let token = cluster.pods[0].token(&who).await.unwrap();
    let client = Client::start(who, token, vec![cluster.pods[0].shared_ip()]);
    client.ready().await.unwrap();
    let publisher = Publisher::connect(&cluster.nats_url()).await.unwrap();
    let subject = Subject { company: "acme".into(), agent: "a1".into(), kind: Kind::Chats };
    let mut stored = Vec::new();
    for _ in 0..1000 {
        stored.push(publisher.store(&subject).await.seq);
    }
    let last = *stored.last().unwrap();
    client.sees("the last event arrives", |seen| matches!(seen, Seen::Event { seq, .. } if *seq == last)).await.unwrap();
    let ledger = client.stop().await;
    let seen = ledger.entries.iter().filter_map(|entry| match entry.seen {
        Seen::Event { seq, .. } => Some(seq),
        _ => None,
    });
    assert_eq!(seen.collect::<Vec<_>>(), stored);
}
