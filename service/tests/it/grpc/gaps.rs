//! Gaps on the wire: by the batch, within bounds, and as an older pod knows them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use daisi_ws_domain::{
    gap::{Gap, GapCause},
    peer::PodRecord,
};
use daisi_ws_proto::dws_message_fwd::{
    AnnounceGapRequest, AnnounceGapResponse, AnnounceGapsRequest, AnnounceGapsResponse, EvictRequest, EvictResponse, GapRoute,
    HoldsSocketsRequest, HoldsSocketsResponse, IntroduceRequest, IntroduceResponse, LoadRequest, LoadResponse, PushBatchRequest,
    PushBatchResponse, PushEventRequest, PushEventResponse, RouteGap as WireGap,
    message_forwarding_service_server::{MessageForwardingService, MessageForwardingServiceServer},
};
use daisi_ws_service::{
    adapters::grpc::MAX_BATCH_GAPS,
    ports::{PeerError, Peers as _, RouteGap},
};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::member;
use crate::support::peers::{GrpcCaller, GrpcPod, event, pod_id};

/// A pod from before gaps could be announced by the batch.
#[derive(Clone, Default)]
pub(super) struct Before(Arc<Mutex<Vec<AnnounceGapRequest>>>);

#[tonic::async_trait]
impl MessageForwardingService for Before {
    async fn push_event(&self, _: Request<PushEventRequest>) -> Result<Response<PushEventResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn push_batch(&self, batch: Request<PushBatchRequest>) -> Result<Response<PushBatchResponse>, Status> {
        // It can't read the last.
        let taken = vec![false; batch.get_ref().events.len()];
        let unreadable = u32::try_from(taken.len() - 1).into_iter().collect();
        Ok(Response::new(PushBatchResponse { taken, unreadable, between: Vec::new() }))
    }
    async fn announce_gap(&self, gap: Request<AnnounceGapRequest>) -> Result<Response<AnnounceGapResponse>, Status> {
        self.0.lock().unwrap().push(gap.into_inner());
        Ok(Response::new(AnnounceGapResponse { sessions: 1 }))
    }
    async fn announce_gaps(&self, _: Request<AnnounceGapsRequest>) -> Result<Response<AnnounceGapsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn holds_sockets(&self, _: Request<HoldsSocketsRequest>) -> Result<Response<HoldsSocketsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn evict(&self, _: Request<EvictRequest>) -> Result<Response<EvictResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn load(&self, _: Request<LoadRequest>) -> Result<Response<LoadResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn introduce(&self, _: Request<IntroduceRequest>) -> Result<Response<IntroduceResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tokio::test]
async fn an_older_pod_is_told_of_each_gap_or_of_all_at_once_and_what_it_cannot_read_is_not_nobodys() {
    let before = Before::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = PodRecord { id: pod_id("b"), address: listener.local_addr().unwrap().to_string(), started_at: Duration::ZERO };
    let (health, served) = tonic_health::server::health_reporter();
    health.set_service_status("pod/b", tonic_health::ServingStatus::Serving).await;
    let serving = Server::builder()
        .add_service(served)
        .add_service(MessageForwardingServiceServer::new(before.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    let caller = GrpcCaller::with("a", |settings| settings.accept_previous = true);
    let route = |agent: u64| event("here", &format!("messages.c{agent}"), 1, "{}").address.routes()[0].clone();
    let gaps = |count: u64| (1..=count).map(|n| RouteGap { route: Some(route(n)), gap: Gap::of(n, GapCause::GivenUp) });
    let telling = async {
        let load = caller.peers.load(&peer).await;
        assert!(matches!(load, Err(PeerError::Refused(_))), "what it has is unknown, and not nothing: {load:?}");
        let unread = caller.peers.push(&peer, &[event("here", "chats", 1, "{}"), event("here", "chats", 2, "{}")]).await;
        assert!(matches!(&unread, Err(PeerError::Failed(_))), "not nobody's: {unread:?}");
        for count in [3, 300] {
            caller.peers.announce_gaps(&peer, &gaps(count).collect::<Vec<_>>()).await.unwrap();
        }
    };
    tokio::select! {
        ended = serving => panic!("{ended:?}"),
        () = telling => {}
    }
    let told = before.0.lock().unwrap().clone();
    assert_eq!(told[..3].iter().map(|gap| gap.first_sequence).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    let all = &told[3];
    assert_eq!((told.len(), &all.route, all.dropped, all.last_sequence), (4, &None, Some(300), Some(300)));
}

#[tokio::test]
async fn many_gaps_are_taken_all_or_none_and_no_more_than_the_bound() {
    let pod = GrpcPod::start("b", 1).await;
    let mut client = member(&pod).await;
    let gaps = |gaps| AnnounceGapsRequest { source_pod_id: "a".into(), gaps };
    let bad = WireGap { route: Some(GapRoute::default()), ..WireGap::default() };
    for refused in [vec![WireGap::default(), bad], vec![WireGap::default(); MAX_BATCH_GAPS + 1]] {
        assert_eq!(client.announce_gaps(gaps(refused)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(pod.recorder.gaps().is_empty());
    let told = client.announce_gaps(gaps(vec![WireGap::default(); MAX_BATCH_GAPS])).await.unwrap().into_inner();
    assert_eq!((told.sessions, pod.recorder.gaps().len()), (2 * MAX_BATCH_GAPS as u64, MAX_BATCH_GAPS));
}
