//! A configuration changes while the fleet runs.

use std::{fs, path::Path, time::Duration};

use daisi_ws_fleet::{
    artifacts,
    containers::{
        cluster::{Cluster, Options},
        pod::API_KEY,
    },
    identity::Who,
    traffic::client::{self, Client},
};
use daisi_ws_testbed::wait;

const SOON: Duration = Duration::from_secs(15);

async fn takes_sessions(cluster: &Cluster, token: &str) -> bool {
    client::refusal(cluster.pods[0].http().unwrap(), "/ws/acme/a1", token, API_KEY).await.is_none()
}

/// Writes the file as an orchestrator does: whole or not at all.
fn write(folder: &Path, text: &str) {
    fs::write(folder.join("new.yaml"), text).unwrap();
    fs::rename(folder.join("new.yaml"), folder.join("config.yaml")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn a_changed_file_takes_effect_by_itself_or_by_a_signal_and_a_bad_one_changes_nothing() {
    let folder = artifacts::folder("config");
    fs::create_dir_all(&folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    write(&folder, "app:\n  max_connections: 10\n");
    let cluster = Cluster::start(Options { config: Some(folder.clone()), ..Options::pods(1) }).await.unwrap();
    let who = Who::User { company: "acme".into(), agent: "a1".into(), user: "sari".into(), chat: None };
    let token = cluster.pods[0].token(&who).await.unwrap();
    assert!(takes_sessions(&cluster, &token).await);
    // One session is there to stay.
    let guest = Who::User { company: "acme".into(), agent: "a1".into(), user: "guest".into(), chat: None };
    let guests = cluster.pods[0].token(&guest).await.unwrap();
    let guest = Client::start(guest, guests, vec![cluster.pods[0].shared_ip()]);
    guest.ready().await.unwrap();

    write(&folder, "app:\n  max_connections: 1\n");
    wait::until("the pod is full by the new limit", SOON, || async { !takes_sessions(&cluster, &token).await }).await.unwrap();

    write(&folder, "app:\n  max_connections: nonsense\n");
    cluster.pods[0].signal("HUP").await.unwrap();
    let refused = "the configuration was not reloaded";
    wait::until("the bad file is refused", SOON, || async { cluster.pods[0].log().await.is_ok_and(|log| log.contains(refused)) })
        .await
        .unwrap();
    assert!(!takes_sessions(&cluster, &token).await, "the old limit stays in force");
    assert!(guest.is_connected(), "nobody who was there has to go");

    write(&folder, "app:\n  max_connections: 10\n");
    cluster.pods[0].signal("HUP").await.unwrap();
    wait::until("the good file is in force", SOON, || takes_sessions(&cluster, &token)).await.unwrap();
}
