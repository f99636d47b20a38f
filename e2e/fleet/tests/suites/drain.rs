//! A pod that is told to go leaves nothing behind.

use std::time::Duration;

use daisi_ws_fleet::{
    containers::cluster::{Cluster, Options},
    identity::Who,
    traffic::{client::Client, ledger::Seen},
};
use daisi_ws_testbed::wait;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn a_drained_pod_says_goodbye_and_leaves_no_lock_and_no_route() {
    let cluster = Cluster::start(Options::pods(2)).await.unwrap();
    let mut clients = Vec::new();
    for user in 0..20 {
        let who = Who::User { company: "acme".into(), agent: "a1".into(), user: format!("user-{user}"), chat: Some("c1".into()) };
        let token = cluster.pods[0].token(&who).await.unwrap();
        let client =
            Client::start(who, token, cluster.pods.iter().map(daisi_ws_fleet::containers::pod::Pod::shared_ip).collect());
        client.ready().await.unwrap();
        assert_eq!(client.connected_to().as_deref(), Some("pod-a"));
        clients.push(client);
    }
    cluster.pods[0].signal("TERM").await.unwrap();
    assert_eq!(cluster.pods[0].exit_code().await.unwrap(), 0);
    for client in &clients {
        client.sees("the goodbye", |seen| *seen == Seen::Closed(Some(1001))).await.unwrap();
        wait::until("the session is on the other pod", Duration::from_secs(20), || {
            std::future::ready(client.connected_to().as_deref() == Some("pod-b"))
        })
        .await
        .unwrap();
    }
    // Every lock names the other pod, every route only the other pod, and the pod itself is gone.
    for user in 0..20 {
        let owner = cluster.redis_cli(&["get", &format!("session:acme:a1:user-{user}")]).await.unwrap();
        assert!(owner.starts_with("pod-b/"), "{owner}");
    }
    for route in ["route:acme:a1:chats", "route:acme:a1:messages:c1"] {
        wait::until("the route is the other pod's", Duration::from_secs(10), || async {
            cluster.redis_cli(&["smembers", route]).await.is_ok_and(|pods| pods == "pod-b")
        })
        .await
        .unwrap();
    }
    assert_eq!(cluster.redis_cli(&["smembers", "pods"]).await.unwrap(), "pod-b");
    assert_eq!(cluster.redis_cli(&["exists", "pod:pod-a"]).await.unwrap(), "0");
}
