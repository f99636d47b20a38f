//! Calling other pods.

mod errors;
mod hello;
pub(crate) mod link;
pub(crate) mod pool;
pub(crate) mod proving;
mod upkeep;

use std::{error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::{
    event::Event,
    ids::{ConnectionId, PodId},
    peer::PodRecord,
    session::Kill,
};
use daisi_ws_proto::dws_message_fwd::{
    AnnounceGapsRequest, HoldsSocketsRequest, IntroduceRequest, LoadRequest, LoadResponse, PushBatchRequest, PushBatchResponse,
    message_forwarding_service_client::MessageForwardingServiceClient,
};
use tokio::time::timeout;
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

pub(crate) use self::hello::hello;
use self::{
    errors::{NoAddress, Odd, peer_error},
    link::Connection,
    pool::Pool,
    proving::{Prover, ProvingChannel},
    upkeep::{check_health, close_idle},
};
use super::{
    CONNECT_TIMEOUT, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_BATCH_GAPS, MAX_MESSAGE_BYTES, PROBE_TIMEOUT, REQUEST_ID_HEADER,
    TRACEPARENT_HEADER,
    convert::{event_to_wire, gap_to_wire, pod_from_wire, pod_to_wire, route_gap_to_wire},
    eviction::kill_to_wire,
    room_name,
    tls::Tls,
    wellness_name,
};
use crate::{
    application::fleet::key::FleetKey,
    metrics::Metrics,
    ports::{Evicted, Handed, MAX_PODS, PeerError, Peers, PodLoad, RouteGap},
    runtime::lifecycle::Tasks,
};

/// A pod that can't be told of many gaps at once is told of each, up to so many, and past that of all of them as one.
const MAX_SINGLE_GAPS: usize = 16;

/// The longest answer to an introduction: so many pods with the longest ids and addresses.
const MAX_INTRODUCTION_BYTES: usize = 512 * 1024;

/// What the client is made of.
#[derive(Debug, Clone)]
pub struct PeersSettings {
    /// This pod, as it names itself to peers.
    pub me: PodId,
    /// The fleet's secret.
    pub key: FleetKey,
    /// Get on with pods of the version before, whose answers prove nothing (`server.grpc_accept_previous`).
    pub accept_previous: bool,
    /// Show a certificate, and have peers show one; `None`: plain text.
    pub tls: Option<Tls>,
    /// A channel unused for this long is closed (`app.grpc_pool_idle_timeout_seconds`).
    pub idle_timeout: Duration,
    /// How often the health of pooled channels is asked (`app.grpc_pool_health_check_interval_seconds`).
    pub health_check_interval: Duration,
}

/// The other pods, over gRPC. Clones share one pool of channels.
#[derive(Debug, Clone)]
pub struct GrpcPeers {
    me: PodId,
    prover: Prover,
    pool: Arc<Pool>,
}

impl GrpcPeers {
    /// Makes the client and starts its one task, which closes idle and unhealthy channels until the soft token is cancelled.
    #[must_use]
    pub fn new(settings: PeersSettings, metrics: Arc<Metrics>, tasks: &Tasks) -> Self {
        let PeersSettings { me, key, accept_previous, tls, idle_timeout, health_check_interval } = settings;
        let prover = Prover { key, clocks: Arc::default(), accept_previous };
        let pool = Arc::new(Pool::new(tls, metrics));
        let (kept, stop) = ((Arc::clone(&pool), prover.clone()), tasks.shutdown().soft.clone());
        tasks.supervise("peer channels", move || {
            let ((pool, prover), stop) = (kept.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = close_idle(&pool, idle_timeout) => {}
                    () = check_health(&pool, &prover, health_check_interval) => {}
                }
            }
        });
        Self { me, prover, pool }
    }

    #[cfg(test)]
    pub(crate) fn clocks(&self) -> &super::clocks::Clocks {
        &self.prover.clocks
    }

    async fn client(&self, to: &PodRecord) -> Result<MessageForwardingServiceClient<ProvingChannel>, PeerError> {
        Ok(MessageForwardingServiceClient::new(self.proved(to).await?)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
            .max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// A channel to the peer, once the other end has proved that it is the peer: nobody else is sent anything.
    async fn proved(&self, to: &PodRecord) -> Result<ProvingChannel, PeerError> {
        let connection = self.connection(to)?;
        if !connection.is_proved() {
            let asked = timeout(CONNECT_TIMEOUT + PROBE_TIMEOUT, self.hello(&connection, to)).await;
            asked.map_err(|_| PeerError::TimedOut)??;
        }
        Ok(ProvingChannel::over(connection.channel(), self.prover.clone(), to.clone(), connection.numbers()))
    }

    fn connection(&self, to: &PodRecord) -> Result<Connection, PeerError> {
        let link = self
            .pool
            .link(to)
            .map_err(|error| PeerError::unreachable(NoAddress { address: to.address.clone(), source: error }))?;
        Ok(link.connection())
    }

    async fn hello(&self, connection: &Connection, to: &PodRecord) -> Result<(), PeerError> {
        match hello(&self.prover, connection, to).await {
            Err(PeerError::AnotherPod) => Err(self.astray(to)),
            answer => answer,
        }
    }

    /// A request with the request id and trace context where all its events share one.
    fn request<T>(message: T, events: &[Arc<Event>]) -> Request<T> {
        let mut request = Request::new(message);
        let contexts = [
            (REQUEST_ID_HEADER, shared(events, |event| event.request_id.as_deref())),
            (TRACEPARENT_HEADER, shared(events, |event| event.traceparent.as_deref())),
        ];
        for (key, text) in contexts {
            // What can't stand in metadata still travels with its event.
            if let Some(value) = text.and_then(|text| MetadataValue::try_from(text).ok()) {
                request.metadata_mut().insert(key, value);
            }
        }
        request
    }

    /// What a status means; a peer of our fleet whose clock differs takes the next proof.
    fn error(&self, to: &PodRecord, status: &Status) -> PeerError {
        if self.prover.clocks.learn(&to.id, status, crate::runtime::clock::now()) {
            return PeerError::unreachable(Odd::Clock);
        }
        if status.code() == Code::NotFound && status.source().is_none() {
            return self.astray(to);
        }
        peer_error(status)
    }

    /// Another pod answered. What is open leads to it, so the next call dials anew.
    fn astray(&self, to: &PodRecord) -> PeerError {
        self.pool.close_astray(to);
        PeerError::AnotherPod
    }

    async fn push_batch(&self, to: &PodRecord, events: &[Arc<Event>]) -> Result<Vec<Handed>, PeerError> {
        let messages = events.iter().map(|event| event_to_wire(event)).collect();
        let message = PushBatchRequest { source_pod_id: self.me.to_string(), events: messages, target_pod_id: to.id.to_string() };
        let answer = self.client(to).await?.push_batch(Self::request(message, events)).await;
        let PushBatchResponse { taken, unreadable, between } = answer.map_err(|status| self.error(to, &status))?.into_inner();
        if !unreadable.is_empty() {
            return Err(PeerError::failed(Odd::CannotRead { events: unreadable.len(), of: events.len() }));
        }
        if taken.len() != events.len() {
            return Err(PeerError::failed(Odd::Answers { answers: taken.len(), questions: events.len() }));
        }
        let mut handed: Vec<Handed> = taken.into_iter().map(|taken| if taken { Handed::Taken } else { Handed::Nobody }).collect();
        for place in between {
            if let Some(handed) = usize::try_from(place).ok().and_then(|place| handed.get_mut(place)) {
                *handed = Handed::Between;
            }
        }
        Ok(handed)
    }

    /// What the peer's health service says under a name; nothing if it does not know the name.
    async fn says(&self, to: &PodRecord, name: String) -> Result<Option<bool>, PeerError> {
        let asked = async {
            let mut client = HealthClient::new(self.proved(to).await?);
            match client.check(HealthCheckRequest { service: name }).await {
                Ok(answer) => Ok(Some(answer.get_ref().status() == ServingStatus::Serving)),
                Err(status) if status.code() == Code::NotFound && status.source().is_none() => Ok(None),
                Err(status) => Err(peer_error(&status)),
            }
        };
        timeout(PROBE_TIMEOUT, asked).await.map_err(|_| PeerError::TimedOut)?
    }

    async fn ask_who_is_held(&self, to: &PodRecord, sockets: &[ConnectionId]) -> Result<Vec<bool>, PeerError> {
        let connection_ids = sockets.iter().map(ToString::to_string).collect();
        let message = HoldsSocketsRequest { source_pod_id: self.me.to_string(), connection_ids };
        let answer = self.client(to).await?.holds_sockets(message).await;
        let answer = answer.map_err(|status| self.error(to, &status))?.into_inner();
        if answer.pod_id != to.id.as_str() {
            return Err(self.astray(to));
        }
        if answer.held.len() != sockets.len() {
            return Err(PeerError::failed(Odd::Answers { answers: answer.held.len(), questions: sockets.len() }));
        }
        Ok(answer.held)
    }

    /// For a pod that is older than the call for many.
    async fn announce_singly(&self, to: &PodRecord, gaps: &[RouteGap]) -> Result<(), PeerError> {
        let merged: Vec<RouteGap> = if gaps.len() <= MAX_SINGLE_GAPS {
            gaps.to_vec()
        } else {
            let all = gaps.iter().map(|pending| pending.gap).reduce(|a, b| a.merge(b));
            all.map(|gap| RouteGap { route: None, gap }).into_iter().collect()
        };
        for pending in &merged {
            let request = gap_to_wire(&self.me, pending);
            self.client(to).await?.announce_gap(request).await.map_err(|status| self.error(to, &status))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Peers for GrpcPeers {
    async fn push(&self, to: &PodRecord, events: &[Arc<Event>]) -> Result<Vec<Handed>, PeerError> {
        let mut handed = Vec::with_capacity(events.len());
        let mut rest = events;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_len(rest));
            handed.extend(self.push_batch(to, batch).await?);
            rest = later;
        }
        Ok(handed)
    }

    async fn announce_gaps(&self, to: &PodRecord, gaps: &[RouteGap]) -> Result<(), PeerError> {
        for gaps in gaps.chunks(MAX_BATCH_GAPS) {
            let message =
                AnnounceGapsRequest { source_pod_id: self.me.to_string(), gaps: gaps.iter().map(route_gap_to_wire).collect() };
            match self.client(to).await?.announce_gaps(message).await {
                Ok(_) => {}
                Err(status) if status.code() == Code::Unimplemented => self.announce_singly(to, gaps).await?,
                Err(status) => return Err(self.error(to, &status)),
            }
        }
        Ok(())
    }

    async fn holds(&self, to: &PodRecord, sockets: &[ConnectionId]) -> Result<Vec<bool>, PeerError> {
        let mut held = Vec::with_capacity(sockets.len());
        for some in sockets.chunks(MAX_BATCH_EVENTS) {
            held.extend(timeout(PROBE_TIMEOUT, self.ask_who_is_held(to, some)).await.map_err(|_| PeerError::TimedOut)??);
        }
        Ok(held)
    }

    async fn evict(&self, to: &PodRecord, kill: &Kill) -> Result<Evicted, PeerError> {
        let asked = async {
            let answer = self.client(to).await?.evict(kill_to_wire(&to.id, kill)).await;
            Ok(answer.map_err(|status| self.error(to, &status))?.into_inner())
        };
        let answer = timeout(PROBE_TIMEOUT, asked).await.map_err(|_| PeerError::TimedOut)??;
        Ok(if answer.serves { Evicted::Serves } else { Evicted::Gone })
    }

    async fn probe(&self, to: &PodRecord) -> Result<(), PeerError> {
        let connection = self.connection(to)?;
        timeout(PROBE_TIMEOUT, self.hello(&connection, to)).await.map_err(|_| PeerError::TimedOut)?
    }

    async fn introduce(&self, me: &PodRecord, to: &PodRecord) -> Result<Vec<PodRecord>, PeerError> {
        let asked = async {
            let mut client = self.client(to).await?.max_decoding_message_size(MAX_INTRODUCTION_BYTES);
            let answer = client.introduce(IntroduceRequest { source: Some(pod_to_wire(me)) }).await;
            Ok(answer.map_err(|status| self.error(to, &status))?.into_inner().pods)
        };
        let pods = timeout(PROBE_TIMEOUT, asked).await.map_err(|_| PeerError::TimedOut)??;
        // One that can't be read is none that could be dialled.
        Ok(pods.iter().take(MAX_PODS).filter_map(|pod| pod_from_wire(pod).ok()).collect())
    }

    async fn has_room(&self, to: &PodRecord) -> Result<bool, PeerError> {
        self.says(to, room_name(&to.id)).await?.ok_or_else(|| PeerError::refused(Odd::Unknown))
    }

    async fn load(&self, to: &PodRecord) -> Result<PodLoad, PeerError> {
        let asked = async {
            let message = LoadRequest { source_pod_id: self.me.to_string(), target_pod_id: to.id.to_string() };
            let answer = self.client(to).await?.load(message).await;
            Ok(answer.map_err(|status| self.error(to, &status))?.into_inner())
        };
        let LoadResponse { sockets, draining } = timeout(PROBE_TIMEOUT, asked).await.map_err(|_| PeerError::TimedOut)??;
        Ok(PodLoad { sockets, draining })
    }

    async fn is_well(&self, to: &PodRecord) -> Result<bool, PeerError> {
        match self.says(to, wellness_name(&to.id)).await? {
            Some(is_well) => Ok(is_well),
            // Too old to know the question, or another pod.
            None => self.probe(to).await.map(|()| true),
        }
    }

    fn forget(&self, pod: &PodId) {
        self.pool.forget(pod);
        self.prover.clocks.forget(pod);
    }
}

/// How many of the events go in the next call: at least one.
fn batch_len(events: &[Arc<Event>]) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take(MAX_BATCH_EVENTS).take_while(|event| {
        bytes += event.payload.bytes().len();
        bytes <= MAX_BATCH_BYTES
    });
    fits.count().max(1)
}

/// The text that all events have in common.
fn shared<'a>(events: &'a [Arc<Event>], text: impl Fn(&'a Event) -> Option<&'a str>) -> Option<&'a str> {
    let (first, others) = events.split_first()?;
    let first = text(first)?;
    others.iter().all(|other| text(other) == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests;
