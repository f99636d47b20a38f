//! Events reach exactly the sessions that they concern, on whichever pod those are.

use std::time::Duration;

use daisi_ws_fleet::{
    containers::cluster::{Cluster, Options},
    oracle::verdict::Verdict,
    traffic::load::Load,
};

/// Pods, and so sources of events for one socket.
const PODS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn each_session_gets_exactly_its_own_and_each_source_in_its_order() {
    let cluster = Cluster::start(Options::pods(PODS)).await.unwrap();
    let load = Load::start(&cluster).await.unwrap();
    load.run(Duration::from_secs(15)).await;
    let verdict = Verdict::of(&load.stop().await.unwrap(), None);
    eprintln!("no fault: {}", serde_json::to_string(&verdict).unwrap());
    daisi_ws_fleet::oracle::table::keep(0, "None", &verdict).unwrap();
    assert!(verdict.is_clean(), "{}", verdict.describe());
    assert!(verdict.rate >= 20.0, "the load was too small: {}", verdict.describe());
    assert_eq!(verdict.sessions, 60 + PODS);
    let nothing = (verdict.announced, verdict.gaps, verdict.with_socket, verdict.away, verdict.repeated);
    assert_eq!(nothing, (0, 0, 0, 0, 0), "{}", verdict.describe());
    // Three ascending sources can't be interleaved into a longer fall.
    assert!(verdict.order_depth <= PODS, "{}", verdict.describe());
    // And it was not all local: every pod handed events to its peers.
    for pod in &cluster.pods {
        let sent = pod.metric("dws_grpc_messages_sent_total", "").await;
        assert!(sent.is_some_and(|sent| sent > 0.0), "{} forwarded {sent:?}", pod.id);
    }
}
