//! Who proves nothing: what it may ask, how long it may stay, and that it is in no pod's way.

use std::time::Duration;

use daisi_ws_service::{
    adapters::grpc::{SelfCheck, Tls},
    ports::{Handed, Peers as _},
    readiness::{Dependency, Readiness},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{channel, proofs};
use crate::support::peers::{GrpcCaller, GrpcPod, event, eventually, fleet_key};

/// The beginning of an HTTP/2 connection: its preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const SETTINGS_ACK: &[u8] = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00";

/// A stranger that says hello and nothing else.
async fn idler(pod: &GrpcPod) -> TcpStream {
    let mut stream = TcpStream::connect(&pod.record.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(SETTINGS_ACK).await.unwrap();
    stream
}

/// The look of a pod at an address that should be its own.
pub(super) fn self_check(pod: &GrpcPod, address: &str, tls: Option<&Tls>) -> SelfCheck {
    SelfCheck::new(pod.record.clone(), address.parse().unwrap(), fleet_key(), tls.cloned())
}

fn cut(pod: &GrpcPod, reason: &str) -> u64 {
    pod.metrics.grpc_connections_cut_total.with_label_values(&[reason]).get()
}

fn open(pod: &GrpcPod, standing: &str) -> i64 {
    pod.metrics.grpc_connections.with_label_values(&[standing]).get()
}

#[tokio::test]
async fn a_stranger_that_only_pings_is_gone_in_seconds() {
    let pod = GrpcPod::start("b", 1).await;
    let stranger = Channel::from_shared(format!("http://{}", pod.record.address)).unwrap();
    let pings = stranger.http2_keep_alive_interval(Duration::from_millis(200)).keep_alive_while_idle(true);
    let (_stranger, began) = (pings.connect().await.unwrap(), Instant::now());
    eventually("it is cut", || cut(&pod, "unproved") > 0).await;
    assert!(began.elapsed() >= Duration::from_secs(4), "it had its time");
    assert_eq!(cut(&pod, "unproved"), 1);
    eventually("its place is free", || open(&pod, "stranger") == 0).await;
}

#[tokio::test]
async fn more_strangers_than_places_keep_no_peer_out_and_cost_none_its_connection() {
    let (pod, caller) = (GrpcPod::start("b", 1).await, GrpcCaller::new("a"));
    let batch = [event("here", "chats", 1, "{}")];
    caller.peers.push(&pod.record, &batch).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..1100 {
        crowd.push(idler(&pod).await);
    }
    eventually("all were accepted", || cut(&pod, "crowded") >= 1100 - 128).await;
    assert!(open(&pod, "stranger") <= 128, "{}", open(&pod, "stranger"));
    // The connection that was there, and one that comes now.
    assert_eq!(caller.peers.push(&pod.record, &batch).await.unwrap(), vec![Handed::Taken]);
    assert_eq!(GrpcCaller::new("c").peers.push(&pod.record, &batch).await.unwrap(), vec![Handed::Taken]);
    assert!(self_check(&pod, &pod.record.address, None).serves().await);
    eventually("the look is over", || open(&pod, "proved") == 2).await;
}

#[tokio::test]
async fn health_is_watched_by_who_proves_itself_alone_and_by_few() {
    let pod = GrpcPod::start("b", 1).await;
    let mut client = HealthClient::new(channel(&pod).await);
    let refused = client.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let watch = || proofs::proven(&pod, proofs::WATCH, HealthCheckRequest::default());
    let mut open = Vec::new();
    let refused = loop {
        match client.watch(watch()).await {
            Ok(stream) => open.push(stream.into_inner()),
            Err(status) => break status,
        }
        assert!(open.len() < 100);
    };
    assert_eq!((refused.code(), open.len()), (Code::ResourceExhausted, 16));
    assert!(open[0].next().await.unwrap().is_ok());
    drop(open.pop());
    for _ in 0..200 {
        if client.watch(watch()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place of a watch that ended stays taken");
}

#[tokio::test]
async fn a_port_that_answers_nobody_is_seen_from_outside() {
    let pod = GrpcPod::start("b", 1).await;
    let readiness = Readiness::default();
    for dependency in [Dependency::Nats, Dependency::Redis] {
        readiness.observe(dependency, true);
    }
    let look = self_check(&pod, &pod.record.address, None);
    let watching = look.watch(&readiness);
    let seen = async {
        eventually("it serves", || readiness.report(Duration::ZERO).ready).await;
        pod.kill().await;
        eventually("it serves no more", || !readiness.report(Duration::ZERO).grpc).await;
    };
    tokio::select! {
        () = watching => {}
        () = seen => {}
    }
    // Bound, and nobody accepts: the kernel takes the connection, and no answer comes.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert!(!self_check(&pod, &deaf.local_addr().unwrap().to_string(), None).serves().await);
    // Another pod's answer is none.
    let other = GrpcPod::start("c", 1).await;
    assert!(!self_check(&pod, &other.record.address, None).serves().await);
}

#[tokio::test]
async fn old_pods_that_are_let_in_without_a_proof_stay() {
    let pod = GrpcPod::start_with("b", 1, |settings| settings.allow_unauthenticated = true).await;
    let mut client = super::stranger(&pod).await;
    assert!(client.push_event(Request::new(super::old_push("here", ""))).await.unwrap().into_inner().success);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(client.push_event(super::old_push("here", "")).await.unwrap().into_inner().success);
    assert_eq!((cut(&pod, "unproved"), open(&pod, "stranger")), (0, 1));
}
