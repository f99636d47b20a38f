//! The calls of the forwarding service: messages in, [`PeerService`] asked, messages out.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use daisi_ws_domain::{
    event::Event,
    ids::{ConnectionId, PodId},
};
use daisi_ws_proto::dws_message_fwd::{
    AnnounceGapRequest, AnnounceGapResponse, AnnounceGapsRequest, AnnounceGapsResponse, EvictRequest, EvictResponse,
    HoldsSocketsRequest, HoldsSocketsResponse, IntroduceRequest, IntroduceResponse, LoadRequest, LoadResponse, PushBatchRequest,
    PushBatchResponse, PushEventRequest, PushEventResponse, RouteGap,
    message_forwarding_service_server::MessageForwardingService,
};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    adapters::grpc::{
        MAX_BATCH_EVENTS, MAX_BATCH_GAPS, REQUEST_ID_HEADER, TRACEPARENT_HEADER,
        convert::{context, event_from_wire, pod_from_wire, pod_to_wire, route_gap_from_wire, single_gap},
        eviction::kill_from_wire,
        legacy::event_from_push,
    },
    metrics::{Metrics, labels::CallRefused},
    ports::{Evicted, Handed, MAX_PODS, PeerService, PodLoad},
};

/// Answers peers. Whether they may ask is settled before ([`super::guard`]).
pub(crate) struct Handler {
    pub(crate) me: PodId,
    pub(crate) service: Arc<dyn PeerService>,
    pub(crate) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl MessageForwardingService for Handler {
    async fn push_event(&self, request: Request<PushEventRequest>) -> Result<Response<PushEventResponse>, Status> {
        let (request_id, traceparent) = contexts(request.metadata());
        let request = request.into_inner();
        let from = self.source(&request.source_pod_id)?;
        let event = event_from_push(request, crate::runtime::clock::now())
            .map_err(|bad| self.refuse(CallRefused::BadRequest, bad.to_string()))?;
        let handed = self.deliver(&from, vec![Event { request_id, traceparent, ..event }])?;
        // An older pod knows of nothing between somebody and nobody.
        let success = handed.first() == Some(&Handed::Taken);
        let message = if success { "delivered" } else { "nobody here" };
        Ok(Response::new(PushEventResponse { success, message: message.to_owned() }))
    }

    async fn push_batch(&self, request: Request<PushBatchRequest>) -> Result<Response<PushBatchResponse>, Status> {
        let request = request.into_inner();
        let from = self.source(&request.source_pod_id)?;
        if !request.target_pod_id.is_empty() {
            // Its sessions may live elsewhere: to say that nobody here wants them would settle events that somebody waits for.
            self.be_meant(&request.target_pod_id)?;
        }
        if request.events.len() > MAX_BATCH_EVENTS {
            return Err(self.refuse(CallRefused::TooMany, format!("a batch has at most {MAX_BATCH_EVENTS} events")));
        }
        let mut good = Vec::with_capacity(request.events.len());
        let mut is_good = Vec::with_capacity(request.events.len());
        let mut unreadable = Vec::new();
        for (place, message) in (0..).zip(request.events) {
            let event = event_from_wire(message);
            is_good.push(event.is_ok());
            match event {
                Ok(event) => good.push(event),
                Err(bad) => {
                    unreadable.push(place);
                    self.count_refused(CallRefused::BadEvent);
                    tracing::warn!(
                        peer.id = %from, error = %bad,
                        "a peer sent an event that is none; the rest of its batch is delivered"
                    );
                }
            }
        }
        let mut verdicts = self.deliver(&from, good)?.into_iter();
        let handed: Vec<Handed> =
            is_good.into_iter().map(|good| good.then(|| verdicts.next()).flatten().unwrap_or(Handed::Nobody)).collect();
        let taken = handed.iter().map(|handed| *handed == Handed::Taken).collect();
        let between = (0..).zip(&handed).filter(|(_, handed)| **handed == Handed::Between).map(|(place, _)| place).collect();
        Ok(Response::new(PushBatchResponse { taken, unreadable, between }))
    }

    async fn announce_gap(&self, request: Request<AnnounceGapRequest>) -> Result<Response<AnnounceGapResponse>, Status> {
        let request = request.into_inner();
        let from = self.source(&request.source_pod_id)?;
        let sessions = self.announce(&from, &[single_gap(request)])?;
        Ok(Response::new(AnnounceGapResponse { sessions }))
    }

    async fn announce_gaps(&self, request: Request<AnnounceGapsRequest>) -> Result<Response<AnnounceGapsResponse>, Status> {
        let request = request.into_inner();
        let from = self.source(&request.source_pod_id)?;
        if request.gaps.len() > MAX_BATCH_GAPS {
            return Err(self.refuse(CallRefused::TooMany, format!("a call has at most {MAX_BATCH_GAPS} gaps")));
        }
        let sessions = self.announce(&from, &request.gaps)?;
        Ok(Response::new(AnnounceGapsResponse { sessions }))
    }

    async fn holds_sockets(&self, request: Request<HoldsSocketsRequest>) -> Result<Response<HoldsSocketsResponse>, Status> {
        let request = request.into_inner();
        self.source(&request.source_pod_id)?;
        if request.connection_ids.len() > MAX_BATCH_EVENTS {
            return Err(self.refuse(CallRefused::TooMany, format!("at most {MAX_BATCH_EVENTS} sockets can be asked about")));
        }
        let sockets: Result<Vec<_>, _> = request.connection_ids.iter().map(|id| ConnectionId::parse(id)).collect();
        let sockets = sockets.map_err(|bad| self.refuse(CallRefused::BadRequest, bad.to_string()))?;
        let held = self.guarded(|| self.service.holds(&sockets))?;
        Ok(Response::new(HoldsSocketsResponse { held, pod_id: self.me.to_string() }))
    }

    async fn evict(&self, request: Request<EvictRequest>) -> Result<Response<EvictResponse>, Status> {
        let request = request.into_inner();
        self.source(&request.source_pod_id)?;
        self.be_meant(&request.target_pod_id)?;
        let kill = kill_from_wire(&self.me, &request).map_err(|bad| self.refuse(CallRefused::BadRequest, bad.to_string()))?;
        let evicted = self.guarded(|| self.service.evict(&kill))?;
        Ok(Response::new(EvictResponse { serves: evicted == Evicted::Serves }))
    }

    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<LoadResponse>, Status> {
        let request = request.into_inner();
        self.source(&request.source_pod_id)?;
        self.be_meant(&request.target_pod_id)?;
        let PodLoad { sockets, draining } = self.guarded(|| self.service.load())?;
        Ok(Response::new(LoadResponse { sockets, draining }))
    }

    async fn introduce(&self, request: Request<IntroduceRequest>) -> Result<Response<IntroduceResponse>, Status> {
        let source = request.into_inner().source.unwrap_or_default();
        let newcomer = pod_from_wire(&source).map_err(|bad| self.refuse(CallRefused::BadRequest, bad.to_string()))?;
        let pods = self.guarded(|| self.service.introduce(&newcomer))?;
        Ok(Response::new(IntroduceResponse { pods: pods.iter().take(MAX_PODS).map(pod_to_wire).collect() }))
    }
}

impl Handler {
    /// Tells whom the gaps concern; a malformed one is found before anybody is told.
    fn announce(&self, from: &PodId, gaps: &[RouteGap]) -> Result<u64, Status> {
        let gaps: Result<Vec<_>, _> = gaps.iter().map(route_gap_from_wire).collect();
        let gaps = gaps.map_err(|bad| self.refuse(CallRefused::BadRequest, bad.to_string()))?;
        let tell = || gaps.iter().map(|pending| self.service.gap(from, pending.route.as_ref(), pending.gap)).sum::<usize>();
        Ok(self.guarded(tell)?.try_into().unwrap_or(u64::MAX))
    }

    fn deliver(&self, from: &PodId, events: Vec<Event>) -> Result<Vec<Handed>, Status> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.metrics.grpc_messages_received_total.inc_by(events.len().try_into().unwrap_or(u64::MAX));
        self.guarded(|| self.service.deliver(from, events))
    }

    /// Asks the pod; a panic there becomes an error of this one call. The service's own locks must bear it, as for any task that
    /// panics.
    fn guarded<T>(&self, ask: impl FnOnce() -> T) -> Result<T, Status> {
        catch_unwind(AssertUnwindSafe(ask)).map_err(|panic| self.report(panic.as_ref()))
    }

    fn report(&self, panic: &(dyn Any + Send)) -> Status {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        self.metrics.task_panics_total.inc();
        tracing::error!(
            task = "peer call",
            panic = text.unwrap_or("no message"),
            "handling a peer's call panicked; the pod goes on"
        );
        Status::internal("the pod failed to handle the call; its log says why")
    }

    fn source(&self, id: &str) -> Result<PodId, Status> {
        PodId::parse(id).map_err(|bad| self.refuse(CallRefused::BadRequest, format!("source_pod_id: {bad}")))
    }

    /// Is this the pod that the caller means?
    fn be_meant(&self, target: &str) -> Result<(), Status> {
        if target == self.me.as_str() {
            return Ok(());
        }
        self.count_refused(CallRefused::OtherPod);
        Err(Status::not_found("another pod is at this address"))
    }

    fn refuse(&self, reason: CallRefused, why: String) -> Status {
        self.count_refused(reason);
        tracing::debug!(reason = reason.as_str(), error = %why, "refused a call of a peer");
        Status::invalid_argument(why)
    }

    fn count_refused(&self, reason: CallRefused) {
        self.metrics.grpc_calls_refused_total.with_label_values(&[reason.as_str()]).inc();
    }
}

/// Request id and trace context of the call itself.
fn contexts(metadata: &MetadataMap) -> (Option<String>, Option<String>) {
    let text = |key| metadata.get(key).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned).and_then(context);
    (text(REQUEST_ID_HEADER), text(TRACEPARENT_HEADER))
}
