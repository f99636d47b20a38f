//! One event, one trace: from the publisher's `traceparent` through two real pods to a real OTLP endpoint.

use std::time::Duration;

use super::RealFleet;
use crate::support::{
    fixture::user_token,
    nats::publication,
    otlp::{Collector, SeenSpan},
    wait,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PUBLISHER: &str = "00f067aa0ba902b7";
const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn a_forwarded_event_is_one_tree_from_its_publisher_to_both_sockets() {
    let (collector, url) = Collector::start().await;
    let env = [
        ("DAISI_WS_TELEMETRY_OTLP_ENDPOINT", url.as_str()),
        ("DAISI_WS_TELEMETRY_SAMPLE_RATIO", "0"),
        ("DAISI_WS_TELEMETRY_LOG_LEVEL", "info,daisi_ws_service=debug"),
    ];
    let fleet = RealFleet::with(2, &env).await;
    let mut clients = Vec::new();
    for (n, pod) in fleet.pods.iter().enumerate() {
        clients.push(pod.connect("/ws/acme/a1", &user_token("acme", "a1", &format!("u{n}"))).await);
    }
    let publish = async |traceparent: Option<String>| {
        let headers: Vec<(&str, &str)> = traceparent.iter().map(|text| ("traceparent", text.as_str())).collect();
        fleet.publisher.publish(&publication("wa.acme.a1.chats", r#"{"event_id":"e-1"}"#), &headers).await.unwrap()
    };
    // The publisher decides: this one is not traced, and with a ratio of 0 neither is one without a decision.
    publish(Some(format!("00-{OTHER_TRACE}-{PUBLISHER}-00"))).await;
    publish(None).await;
    publish(Some(format!("00-{TRACE}-{PUBLISHER}-01"))).await;
    for client in &mut clients {
        client.expect_events(3).await;
    }
    // Batches are exported every five seconds.
    wait::until("four spans are exported", || std::future::ready(collector.spans().len() >= 4)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spans = collector.spans();
    assert!(spans.len() == 4 && spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");

    let one = |name: &str, parent: &str| -> SeenSpan {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name && span.parent == parent).collect();
        let [span] = found[..] else { panic!("not one {name} under {parent}: {spans:#?}") };
        span.clone()
    };
    let dispatch = one("dispatch", PUBLISHER);
    let (forward, here) = (one("forward", &dispatch.id), one("write", &dispatch.id));
    let there = one("write", &forward.id);
    assert_eq!((&forward.pod, &here.pod), (&dispatch.pod, &dispatch.pod));
    assert_ne!(there.pod, dispatch.pod);
    assert!(forward.nanos > 0 && forward.nanos <= dispatch.nanos, "{spans:#?}");

    // The log line of the dispatch has the ids, and the lines of what is not traced have none.
    let lines: Vec<_> = fleet.pods.iter().flat_map(|pod| pod.logged("an event is dispatched")).collect();
    let traced: Vec<_> = lines.iter().filter(|line| line["trace_id"].is_string()).collect();
    assert_eq!((lines.len(), traced.len()), (3, 1), "{lines:#?}");
    assert_eq!((&traced[0]["trace_id"], &traced[0]["span_id"]), (&TRACE.into(), &dispatch.id.as_str().into()));
    assert_eq!(traced[0]["event.id"], "e-1");
}
