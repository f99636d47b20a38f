//! What only the real wire can show: proofs, old pods, malformed messages, limits, health, reflection and the pool.

mod gaps;
mod proofs;
mod strangers;
mod tls;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use daisi_ws_domain::{
    event::Event,
    gap::{Gap, GapCause},
    peer::PodRecord,
};
use daisi_ws_proto::dws_message_fwd::{
    AnnounceGapRequest, EnrichedEventPayloadMessage, EventKind, ForwardedEvent, GapRoute, PushBatchRequest, PushEventRequest,
    message_forwarding_service_client::MessageForwardingServiceClient as Client,
};
use daisi_ws_service::{
    adapters::grpc::{MAX_BATCH_EVENTS, MAX_MESSAGE_BYTES, PROOF_HEADER, ProvingChannel},
    application::fleet::key::FleetKey,
    config::Secret,
    ports::{Handed, PeerError, Peers, RouteGap},
};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::support::{
    peers::{GrpcCaller, GrpcPod, event, eventually, fleet_key, pod_id},
    shared_address::shared_address,
};

async fn channel(pod: &GrpcPod) -> Channel {
    Channel::from_shared(format!("http://{}", pod.record.address)).unwrap().connect().await.unwrap()
}

/// A client as an older pod, or a stranger, has it: without a proof.
async fn stranger(pod: &GrpcPod) -> Client<Channel> {
    Client::new(channel(pod).await)
}

/// A channel as a pod of our fleet has it.
async fn proving(pod: &GrpcPod) -> ProvingChannel {
    ProvingChannel::new(channel(pod).await, fleet_key(), pod.record.clone())
}

/// A client that is a pod of our fleet.
async fn member(pod: &GrpcPod) -> Client<ProvingChannel> {
    Client::new(proving(pod).await)
}

fn old_push(company: &str, chat: &str) -> PushEventRequest {
    let number = |number| prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(number)) };
    PushEventRequest {
        payload: Some(EnrichedEventPayloadMessage {
            event_id: "e1".into(),
            company_id: company.into(),
            row_data: Some(prost_types::Struct { fields: [("n".to_owned(), number(42.0))].into() }),
            event_time: "2026-01-02T03:04:05Z".into(),
            ..Default::default()
        }),
        target_company_id: company.into(),
        target_agent_id: "a1".into(),
        target_chat_id: chat.into(),
        source_pod_id: "old-pod".into(),
    }
}

fn forwarded(company: &str, kind: EventKind, payload: &'static str) -> ForwardedEvent {
    ForwardedEvent {
        kind: kind.into(),
        company_id: company.into(),
        agent_id: "a1".into(),
        payload: Bytes::from_static(payload.as_bytes()),
        ..Default::default()
    }
}

fn batch(events: Vec<ForwardedEvent>) -> PushBatchRequest {
    PushBatchRequest { source_pod_id: "a".into(), events, target_pod_id: String::new() }
}

// ---- proofs
// ----------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn without_a_proof_every_call_is_refused() {
    let pod = GrpcPod::start("b", 1).await;
    let mut client = stranger(&pod).await;
    let codes = [
        client.push_event(old_push("here", "")).await.unwrap_err().code(),
        client.push_batch(batch(vec![forwarded("here", EventKind::Chat, "{}")])).await.unwrap_err().code(),
        client.announce_gap(AnnounceGapRequest { source_pod_id: "a".into(), ..Default::default() }).await.unwrap_err().code(),
    ];
    assert_eq!(codes, [Code::Unauthenticated; 3]);
    assert_eq!(pod.refused("unauthenticated"), 3);
    assert!(pod.recorder.events().is_empty() && pod.recorder.gaps().is_empty());
}

#[tokio::test]
async fn a_pod_of_another_fleet_is_refused_even_where_old_pods_are_not() {
    let pod = GrpcPod::start_with("b", 1, |settings| settings.allow_unauthenticated = true).await;
    let other = FleetKey::derive(&Secret::new("00".repeat(32)), &Secret::new("11".repeat(32)));
    let caller = GrpcCaller::with("a", |settings| settings.key = other);
    let refused = caller.peers.push(&pod.record, &[event("here", "chats", 1, "{}")]).await;
    assert!(matches!(&refused, Err(PeerError::Refused(why)) if why.to_string().contains("Unauthenticated")), "{refused:?}");
    let gaps = [RouteGap { route: None, gap: Gap::of(1, GapCause::GivenUp) }];
    let refused = caller.peers.announce_gaps(&pod.record, &gaps).await;
    assert!(matches!(refused, Err(PeerError::Refused(_))));

    let mut request = Request::new(old_push("here", ""));
    request.metadata_mut().insert(PROOF_HEADER, "v1.1800000000.00".parse().unwrap());
    assert_eq!(stranger(&pod).await.push_event(request).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(pod.recorder.events().is_empty() && pod.recorder.gaps().is_empty());
}

#[tokio::test]
async fn the_switch_for_old_pods_opens_push_event_and_nothing_else() {
    let pod = GrpcPod::start_with("b", 1, |settings| settings.allow_unauthenticated = true).await;
    let mut client = stranger(&pod).await;
    let mut request = Request::new(old_push("here", "c.d"));
    request.metadata_mut().insert("x-request-id", "r-7".parse().unwrap());
    let answer = client.push_event(request).await.unwrap().into_inner();
    assert!(answer.success);
    let (from, got) = pod.recorder.events().remove(0);
    assert_eq!((from, got.address.chat().unwrap().as_str()), (pod_id("old-pod"), "c.d"));
    assert_eq!(got.request_id.as_deref(), Some("r-7"));
    assert!(!got.is_sequenced());
    assert_eq!(serde_json::from_slice::<serde_json::Value>(got.payload.bytes()).unwrap()["row_data"]["n"], 42);
    assert!(std::str::from_utf8(got.payload.bytes()).unwrap().contains(r#""n":42}"#));

    let nobody = client.push_event(old_push("away", "")).await.unwrap().into_inner();
    assert!(!nobody.success, "nobody here is an answer");
    let refused = client.push_batch(batch(vec![])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let gap = AnnounceGapRequest { source_pod_id: "a".into(), ..Default::default() };
    assert_eq!(client.announce_gap(gap).await.unwrap_err().code(), Code::Unauthenticated);
}

// ---- messages
// --------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_empty_or_malformed_push_event_is_an_invalid_argument_and_the_pod_lives() {
    let pod = GrpcPod::start_with("b", 1, |settings| settings.allow_unauthenticated = true).await;
    let mut client = stranger(&pod).await;
    let bad = [
        PushEventRequest::default(),
        PushEventRequest { source_pod_id: "a".into(), ..Default::default() },
        PushEventRequest { payload: None, ..old_push("here", "") },
        PushEventRequest { target_company_id: "*".into(), ..old_push("here", "") },
        PushEventRequest { target_agent_id: String::new(), ..old_push("here", "") },
        PushEventRequest { source_pod_id: "a/b".into(), ..old_push("here", "") },
        old_push("here", "c >"),
    ];
    let count = bad.len();
    for request in bad {
        assert_eq!(client.push_event(request.clone()).await.unwrap_err().code(), Code::InvalidArgument, "{request:?}");
    }
    assert_eq!(pod.refused("bad_request"), count as u64);
    assert!(client.push_event(old_push("here", "")).await.unwrap().into_inner().success);
}

#[tokio::test]
async fn a_bad_event_is_not_taken_and_the_rest_of_its_batch_is() {
    let pod = GrpcPod::start("b", 1).await;
    let events = vec![
        forwarded("here", EventKind::Chat, "{}"),
        forwarded("here", EventKind::Unspecified, "{}"),
        forwarded("*", EventKind::Chat, "{}"),
        forwarded("here", EventKind::Message, "{}"),
        forwarded("here", EventKind::Chat, "[1]"),
        ForwardedEvent { kind: 77, ..forwarded("here", EventKind::Chat, "{}") },
        forwarded("away", EventKind::Agent, "{}"),
        forwarded("here", EventKind::Agent, "{}"),
    ];
    let answer = member(&pod).await.push_batch(batch(events)).await.unwrap().into_inner();
    assert_eq!(answer.taken, [true, false, false, false, false, false, false, true]);
    // So that the caller does not take them for nobody's.
    assert_eq!(answer.unreadable, [1, 2, 3, 4, 5]);
    assert_eq!(pod.refused("bad_event"), 5);
    assert_eq!(pod.metrics.grpc_messages_received_total.get(), 3);
}

#[tokio::test]
async fn a_batch_or_gap_without_a_sane_source_or_route_is_refused_whole() {
    let pod = GrpcPod::start("b", 1).await;
    let mut client = member(&pod).await;
    let nameless = PushBatchRequest { source_pod_id: String::new(), ..batch(vec![forwarded("here", EventKind::Chat, "{}")]) };
    assert_eq!(client.push_batch(nameless).await.unwrap_err().code(), Code::InvalidArgument);
    let route = Some(GapRoute { kind: EventKind::Chat.into(), company_id: "*".into(), ..Default::default() });
    let gap = AnnounceGapRequest { source_pod_id: "a".into(), route, ..Default::default() };
    assert_eq!(client.announce_gap(gap).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(pod.refused("bad_request"), 2);
    assert!(pod.recorder.events().is_empty() && pod.recorder.gaps().is_empty());
}

#[tokio::test]
async fn a_batch_of_too_many_events_or_bytes_is_refused_and_the_pod_lives() {
    let pod = GrpcPod::start("b", 1).await;
    let mut client = member(&pod).await;
    let many = batch(vec![forwarded("here", EventKind::Chat, "{}"); MAX_BATCH_EVENTS + 1]);
    assert_eq!(client.push_batch(many).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(pod.refused("too_many"), 1);

    let huge = ForwardedEvent { payload: vec![b' '; MAX_MESSAGE_BYTES + 1].into(), ..forwarded("here", EventKind::Chat, "") };
    let refused = client.push_batch(batch(vec![huge])).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused:?}");
    let good = batch(vec![forwarded("here", EventKind::Chat, "{}")]);
    assert_eq!(client.push_batch(good).await.unwrap().into_inner().taken, [true]);
}

#[tokio::test]
async fn who_proves_nothing_may_send_less() {
    let pod = GrpcPod::start_with("b", 1, |settings| settings.allow_unauthenticated = true).await;
    let mut client = stranger(&pod).await;
    let large = || {
        let mut push = old_push("here", "");
        push.payload.as_mut().unwrap().event_id = "x".repeat(5 * 1024 * 1024);
        push
    };
    let refused = client.push_event(large()).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused:?}");
    assert!(member(&pod).await.push_event(large()).await.unwrap().into_inner().success);
}

#[tokio::test]
async fn a_panic_is_answered_internal_and_the_pod_lives() {
    let pod = GrpcPod::start("b", 1).await;
    let mut client = member(&pod).await;
    let good = || batch(vec![forwarded("here", EventKind::Chat, "{}")]);
    pod.recorder.panic(true);
    let refused = client.push_batch(good()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(!refused.message().contains("on purpose"), "inner details stay inside");
    pod.recorder.panic(false);
    assert_eq!(client.push_batch(good()).await.unwrap().into_inner().taken, [true]);
    assert_eq!(pod.metrics.task_panics_total.get(), 1);
}

#[tokio::test]
async fn many_events_and_large_ones_arrive_in_order_over_several_calls() {
    let (pod, caller) = (GrpcPod::start("b", 1).await, GrpcCaller::new("a"));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(3 * 1024 * 1024));
    let mut events: Vec<Arc<Event>> = (0..2500).map(|seq| event("here", "chats", seq, "{}")).collect();
    events.insert(10, event("away", "chats", 9999, &large));
    let taken = caller.peers.push(&pod.record, &events).await.unwrap();
    assert_eq!(
        (taken.len(), taken.iter().filter(|handed| **handed == Handed::Nobody).count(), taken[10]),
        (2501, 1, Handed::Nobody)
    );
    let expected: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(pod.recorder.sequences(), expected);
}

// ---- health, reflection, stop
// ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn health_is_served_without_a_proof() {
    let pod = GrpcPod::start("b", 1).await;
    let mut client = HealthClient::new(channel(&pod).await);
    for name in ["", "dws_message_fwd.MessageForwardingService", "pod/b"] {
        let answer = client.check(HealthCheckRequest { service: name.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{name}");
    }
    let unknown = client.check(HealthCheckRequest { service: "pod/other".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

async fn reflected(pod: &GrpcPod) -> Result<Vec<String>, Code> {
    let request =
        ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let mut client = ServerReflectionClient::new(channel(pod).await);
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.map_err(|status| status.code())?;
    let answer = answers.into_inner().next().await.unwrap().map_err(|status| status.code())?;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("no list") };
    Ok(list.service.into_iter().map(|service| service.name).collect())
}

#[tokio::test]
async fn reflection_is_served_only_where_it_is_switched_on() {
    let off = GrpcPod::start("b", 1).await;
    assert_eq!(reflected(&off).await, Err(Code::Unimplemented));
    let on = GrpcPod::start_with("b", 1, |settings| settings.enable_reflection = true).await;
    let services = reflected(&on).await.unwrap();
    for name in ["dws_message_fwd.MessageForwardingService", "grpc.health.v1.Health"] {
        assert!(services.iter().any(|service| service == name), "{name} in {services:?}");
    }
}

#[tokio::test]
async fn a_stopped_server_ends_soon_even_while_its_health_is_watched() {
    let pod = GrpcPod::start("b", 1).await;
    let mut watching = HealthClient::new(channel(&pod).await);
    let watch = proofs::proven(&pod, proofs::WATCH, HealthCheckRequest::default());
    let mut watch = watching.watch(watch).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let before = Instant::now();
    pod.stop.cancel();
    pod.tasks.ended().await;
    assert!(before.elapsed() < Duration::from_secs(5));
    assert!(timeout(Duration::from_secs(5), watch.next()).await.unwrap().is_none_or(|next| next.is_err()));
    let caller = GrpcCaller::new("a");
    assert!(matches!(caller.peers.probe(&pod.record).await, Err(PeerError::Unreachable(_))));
}

// ---- pool
// ------------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn idle_channels_are_closed_and_the_next_call_dials_anew() {
    let pod = GrpcPod::start("b", 1).await;
    let caller = GrpcCaller::with("a", |settings| settings.idle_timeout = Duration::from_millis(50));
    let batch = [event("here", "chats", 1, "{}")];
    caller.peers.push(&pod.record, &batch).await.unwrap();
    eventually("the channel is closed", || caller.closed("idle") == 1).await;
    assert_eq!(caller.metrics.grpc_pool_size.get(), 0);
    assert_eq!(caller.peers.push(&pod.record, &batch).await.unwrap(), vec![Handed::Taken]);
    assert_eq!(caller.metrics.grpc_pool_connections_created_total.get(), 2);
}

#[tokio::test]
async fn channels_of_dead_peers_are_closed_and_those_of_live_ones_stay() {
    let (first, second, alive) = (GrpcPod::start("b", 1).await, GrpcPod::start("c", 1).await, GrpcPod::start("d", 1).await);
    let caller = GrpcCaller::with("a", |settings| settings.health_check_interval = Duration::from_millis(30));
    for pod in [&first, &second, &alive] {
        caller.peers.push(&pod.record, &[event("here", "chats", 1, "{}")]).await.unwrap();
    }
    first.kill().await;
    eventually("the first dead peer's channel is closed", || caller.closed("unhealthy") == 1).await;
    second.kill().await;
    eventually("the second one's too, a round later", || caller.closed("unhealthy") == 2).await;
    assert_eq!(caller.metrics.grpc_pool_size.get(), 1);
    caller.peers.forget(&alive.record.id);
    assert_eq!((caller.closed("forgotten"), caller.metrics.grpc_pool_size.get()), (1, 0));
}

#[tokio::test]
async fn a_channel_at_whose_end_another_pod_answers_is_dialled_anew_at_once() {
    let (other, caller, leads_to) = (GrpcPod::start("c", 1).await, GrpcCaller::new("a"), Arc::new(Mutex::new(String::new())));
    let (address, _tasks) = shared_address(Arc::clone(&leads_to)).await;
    let mut own = String::new();
    let pod = GrpcPod::start_with("b", 1, |settings| own = std::mem::replace(&mut settings.me.address, address)).await;
    let record = pod.record.clone();
    leads_to.lock().unwrap().clone_from(&other.record.address);
    let batch = [event("here", "chats", 1, "{}")];
    let astray = |answer: &PeerError| matches!(answer, PeerError::AnotherPod);
    assert!(astray(&caller.peers.push(&record, &batch).await.unwrap_err()));
    assert!(astray(&caller.peers.probe(&record).await.unwrap_err()));
    leads_to.lock().unwrap().clone_from(&own);
    caller.peers.probe(&record).await.unwrap();
    assert_eq!(caller.peers.push(&record, &batch).await.unwrap(), vec![Handed::Taken]);
    assert_eq!((caller.closed("unhealthy"), caller.metrics.grpc_pool_connections_created_total.get()), (2, 3));
}

#[tokio::test]
async fn the_clients_task_ends_with_the_drain_and_calls_still_go() {
    let (pod, caller) = (GrpcPod::start("b", 1).await, GrpcCaller::new("a"));
    timeout(Duration::from_secs(5), caller.stop()).await.unwrap();
    assert_eq!(caller.peers.push(&pod.record, &[event("here", "chats", 1, "{}")]).await.unwrap(), vec![Handed::Taken]);
}

#[test]
fn no_secret_shows_in_debug() {
    let me = PodRecord { id: pod_id("b"), address: "b:1".into(), started_at: Duration::ZERO };
    let settings = daisi_ws_service::adapters::grpc::GrpcServerSettings::new(me, fleet_key());
    assert!(format!("{settings:?}").contains("FleetKey(<redacted>)"));
}
