//! Who is a pod: what an overheard proof opens, and what a false pod gets.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use daisi_ws_domain::peer::PodRecord;
use daisi_ws_proto::dws_message_fwd::{
    EventKind, PushBatchRequest, PushBatchResponse, message_forwarding_service_client::MessageForwardingServiceClient,
    message_forwarding_service_server::MessageForwardingServiceServer,
};
use daisi_ws_service::{
    adapters::grpc::{ANSWER_HEADER, PREVIOUS_PROOF_HEADER, PROOF_HEADER, ProvingChannel, previous_proof, prove_call},
    application::fleet::key::FleetKey,
    config::Secret,
    ports::{Handed, PeerError, Peers as _},
    runtime::clock,
    telemetry::Chain,
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{
    Code, Request,
    metadata::MetadataMap,
    transport::{Channel, Server, server::TcpIncoming},
};

use super::{batch, channel, forwarded, gaps::Before, member, stranger};
use crate::support::{
    peers::{FreezableWire, GrpcCaller, GrpcPod, event, fleet_key, pod_id},
    shared_address::shared_address,
};

pub(super) const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A request with a proof for just this call of no body.
pub(super) fn proven<T>(pod: &GrpcPod, path: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let proof = prove_call(&fleet_key(), path, &pod.record, &[0; 5], clock::now());
    request.metadata_mut().insert(PROOF_HEADER, proof.parse().unwrap());
    request
}

/// Anyone who writes an address of its own into Redis: it answers all calls with what its caller would like to hear, and keeps
/// what it was sent.
struct FalsePod {
    address: String,
    heard: Arc<Mutex<Vec<MetadataMap>>>,
    batches: Before,
    _tasks: JoinSet<()>,
}

impl FalsePod {
    async fn start(id: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (heard, batches) = (Arc::<Mutex<Vec<MetadataMap>>>::default(), Before::default());
        let (health, served) = tonic_health::server::health_reporter();
        health.set_service_status(format!("pod/{id}"), tonic_health::ServingStatus::Serving).await;
        let hears = Arc::clone(&heard);
        let forwarding = MessageForwardingServiceServer::with_interceptor(batches.clone(), move |request: Request<()>| {
            hears.lock().unwrap().push(request.metadata().clone());
            Ok(request)
        });
        let serving =
            Server::builder().add_service(served).add_service(forwarding).serve_with_incoming(TcpIncoming::from(listener));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { serving.await.unwrap() });
        Self { address, heard, batches, _tasks: tasks }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }
}

fn with_proof(message: PushBatchRequest, proof: &str) -> Request<PushBatchRequest> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(PROOF_HEADER, proof.parse().unwrap());
    request
}

#[tokio::test]
async fn an_address_that_cannot_prove_itself_gets_no_event_and_its_answer_is_none() {
    let (evil, caller) = (FalsePod::start("b").await, GrpcCaller::new("a"));
    let record = PodRecord { id: pod_id("b"), address: evil.address.clone(), started_at: Duration::ZERO };
    for _ in 0..2 {
        let pushed = caller.peers.push(&record, &[event("here", "chats", 1, r#"{"secret":1}"#)]).await;
        let error = pushed.unwrap_err();
        assert!(matches!(error, PeerError::Unreachable(_)) && Chain(&error).to_string().contains("not proved"), "{error:?}");
        assert!(caller.peers.probe(&record).await.is_err(), "health that is not proved is none");
        assert!(caller.peers.has_room(&record).await.is_err());
        assert!(caller.peers.introduce(&record, &record).await.is_err());
    }
    assert!(evil.heard.lock().unwrap().is_empty(), "no call but the question who it is");
    // For one rollout it is believed, as the version before believed it.
    let lenient = GrpcCaller::with("a", |settings| settings.accept_previous = true);
    lenient.peers.probe(&record).await.unwrap();
    let _ = lenient.peers.push(&record, &[event("here", "chats", 1, "{}"), event("here", "chats", 2, "{}")]).await;
    assert_eq!(evil.heard.lock().unwrap().len(), 1);
    drop(evil.batches);
}

#[tokio::test]
async fn whoever_passes_calls_on_to_the_real_pod_learns_nothing() {
    let (pod, caller) = (GrpcPod::start("b", 1).await, GrpcCaller::new("a"));
    let relay = FreezableWire::to(pod.record.address.clone()).await;
    let record = PodRecord { address: relay.address.to_string(), ..pod.record.clone() };
    let pushed = caller.peers.push(&record, &[event("here", "chats", 1, "{}")]).await;
    assert!(matches!(&pushed, Err(PeerError::AnotherPod)), "{pushed:?}");
    assert!(pod.recorder.events().is_empty());
    assert!(pod.refused("other_pod") >= 1);
    assert_eq!(caller.peers.push(&pod.record, &[event("here", "chats", 1, "{}")]).await.unwrap(), vec![Handed::Taken]);
}

#[tokio::test]
async fn an_overheard_proof_opens_one_call_once() {
    let (pod, other, evil) = (GrpcPod::start("b", 1).await, GrpcPod::start("c", 1).await, FalsePod::start("b").await);
    let message = || batch(vec![forwarded("here", EventKind::Chat, "{}")]);
    // A call for the real pod that somebody overhears on its way.
    let overheard = ProvingChannel::new(evil.channel().await, fleet_key(), pod.record.clone());
    let lost = MessageForwardingServiceClient::new(overheard).push_batch(message()).await.unwrap_err();
    assert!(lost.message().contains("not proved"), "{lost:?}");
    let proof = evil.heard.lock().unwrap()[0].get(PROOF_HEADER).unwrap().to_str().unwrap().to_owned();

    let mut to_other = MessageForwardingServiceClient::new(channel(&other).await);
    assert_eq!(to_other.push_batch(with_proof(message(), &proof)).await.unwrap_err().code(), Code::NotFound);
    let mut client = stranger(&pod).await;
    let mut gap = Request::new(Default::default());
    gap.metadata_mut().insert(PROOF_HEADER, proof.parse().unwrap());
    assert_eq!(client.announce_gap(gap).await.unwrap_err().code(), Code::Unauthenticated, "another method");
    let answer = client.push_batch(with_proof(message(), &proof)).await.unwrap();
    assert!(answer.metadata().contains_key(ANSWER_HEADER));
    assert_eq!(answer.into_inner().taken, [true], "the call itself, late");
    let again = client.push_batch(with_proof(message(), &proof)).await.unwrap_err();
    assert_eq!((again.code(), pod.refused("replayed")), (Code::Unauthenticated, 1));
    assert_eq!(pod.recorder.sequences().len(), 1);
}

#[tokio::test]
async fn a_proof_is_of_its_body() {
    let (pod, evil) = (GrpcPod::start("b", 1).await, FalsePod::start("b").await);
    let overheard = ProvingChannel::new(evil.channel().await, fleet_key(), pod.record.clone());
    let _ = MessageForwardingServiceClient::new(overheard).push_batch(batch(vec![])).await;
    let proof = evil.heard.lock().unwrap()[0].get(PROOF_HEADER).unwrap().to_str().unwrap().to_owned();
    let forged = batch(vec![forwarded("here", EventKind::Chat, r#"{"forged":true}"#)]);
    let refused = stranger(&pod).await.push_batch(with_proof(forged, &proof)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(pod.recorder.events().is_empty());
}

#[tokio::test]
async fn a_proof_of_a_minute_ago_opens_nothing_and_one_of_the_version_before_only_for_a_rollout() {
    let pod = GrpcPod::start("b", 1).await;
    let path = "/dws_message_fwd.MessageForwardingService/PushBatch";
    let old = prove_call(&fleet_key(), path, &pod.record, &[0; 5], clock::now() - Duration::from_secs(60));
    let refused = stranger(&pod).await.push_batch(with_proof(PushBatchRequest::default(), &old)).await.unwrap_err();
    // Proved, so that a pod whose clock is wrong can find the time that it has to prove.
    assert!(refused.metadata().contains_key("x-dws-clock") && refused.metadata().contains_key(ANSWER_HEADER));

    let previous = |message| {
        let mut request = Request::new(message);
        let proof = previous_proof(&fleet_key(), clock::now());
        request.metadata_mut().insert(PREVIOUS_PROOF_HEADER, proof.parse().unwrap());
        request
    };
    let refused = stranger(&pod).await.push_batch(previous(batch(vec![]))).await.unwrap_err();
    assert!(refused.message().contains("grpc_accept_previous"), "{refused:?}");
    let lenient = GrpcPod::start_with("b", 1, |settings| settings.accept_previous = true).await;
    let PushBatchResponse { taken, .. } = stranger(&lenient)
        .await
        .push_batch(previous(batch(vec![forwarded("here", EventKind::Chat, "{}")])))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(taken, [true]);
    // One of this version proves itself to it all the same.
    assert_eq!(member(&lenient).await.push_batch(batch(vec![])).await.unwrap().into_inner().taken, [] as [bool; 0]);
}

#[tokio::test]
async fn the_answer_of_another_fleet_is_none() {
    let other = FleetKey::derive(&Secret::new("00".repeat(32)), &Secret::new("11".repeat(32)));
    let (pod, caller) = (GrpcPod::start("b", 1).await, GrpcCaller::with("a", |settings| settings.key = other));
    let pushed = caller.peers.push(&pod.record, &[event("here", "chats", 1, "{}")]).await;
    assert!(matches!(&pushed, Err(PeerError::Refused(_))), "{pushed:?}");
}

#[tokio::test]
async fn a_connection_that_is_made_again_leads_to_nobody_who_has_not_proved_itself() {
    let (evil, caller) = (FalsePod::start("b").await, GrpcCaller::new("a"));
    let leads_to = Arc::new(Mutex::new(String::new()));
    let (address, _tasks) = shared_address(Arc::clone(&leads_to)).await;
    let mut own = String::new();
    let pod = GrpcPod::start_with("b", 1, |settings| own = std::mem::replace(&mut settings.me.address, address)).await;
    leads_to.lock().unwrap().clone_from(&own);
    let batch = [event("here", "chats", 1, "{}")];
    assert_eq!(caller.peers.push(&pod.record, &batch).await.unwrap(), vec![Handed::Taken]);
    // The pod dies, and its address passes to another before anybody knows.
    leads_to.lock().unwrap().clone_from(&evil.address);
    pod.kill().await;
    for _ in 0..5 {
        assert!(caller.peers.push(&pod.record, &batch).await.is_err());
    }
    assert!(evil.heard.lock().unwrap().is_empty());
}
