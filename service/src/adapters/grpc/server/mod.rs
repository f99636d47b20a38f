//! The listener for other pods: bound first, so that its address can be announced, then served until it is told to stop.

pub(crate) mod guard;
pub(crate) mod handler;
pub(crate) mod incoming;
pub(crate) mod places;
pub(crate) mod replays;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use daisi_ws_domain::{ids::PodId, peer::PodRecord};
use daisi_ws_proto::{FILE_DESCRIPTOR_SET, dws_message_fwd::message_forwarding_service_server::MessageForwardingServiceServer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

use self::{
    guard::{Guard, Judge},
    handler::Handler,
    places::Places,
    replays::Replays,
};
use super::{
    CONNECTION_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MAX_MESSAGE_BYTES, STREAM_WINDOW, health_name, room_name,
    tls::Tls, wellness_name,
};
use crate::{application::fleet::key::FleetKey, metrics::Metrics, ports::PeerService, runtime::listen::listen};

/// Calls of one connection that are handled at a time; more wait. A pod has one batch at a time under way to each peer, beside
/// probes and gaps.
const CALLS_PER_CONNECTION: usize = 32;

/// Streams that one connection may have open, those that wait included.
const STREAMS_PER_CONNECTION: u32 = 64;

/// The longest that a call may take, its request's arrival included: longer than any caller waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest header list: a proof, a request id and a trace context take 300 bytes.
const MAX_HEADER_BYTES: u32 = 8 * 1024;

/// Streams that a caller has reset before they were looked at; one that resets faster is broken.
const PENDING_RESETS: usize = 20;

/// Streams that had to be reset for a caller's fault; one that has more of them is broken.
const ERROR_RESETS: usize = 256;

/// The longest message of a pod that proves nothing: what the predecessor's own server accepted (gRPC's default in Go).
const MAX_UNPROVEN_BYTES: usize = 4 * 1024 * 1024;

/// How long calls under way may go on after the stop. They take milliseconds; a health watch would never end.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What the server is made of.
#[derive(Debug, Clone)]
pub struct GrpcServerSettings {
    /// This pod, as it announces itself: the health service answers for its id, and calls must be meant for it at this address.
    pub me: PodRecord,
    /// The fleet's secret.
    pub key: FleetKey,
    /// Let pods without a proof call `PushEvent`, and only that (`server.grpc_allow_unauthenticated`).
    pub allow_unauthenticated: bool,
    /// Take the proofs of the version before (`server.grpc_accept_previous`).
    pub accept_previous: bool,
    /// Have callers show a certificate, and show one; `None`: plain text.
    pub tls: Option<Tls>,
    /// Serve reflection (`server.enable_reflection`).
    pub enable_reflection: bool,
}

impl GrpcServerSettings {
    /// A server that takes calls of the fleet alone.
    #[must_use]
    pub fn new(me: PodRecord, key: FleetKey) -> Self {
        Self { me, key, allow_unauthenticated: false, accept_previous: false, tls: None, enable_reflection: false }
    }
}

/// The server could not be made or kept running.
#[derive(Debug, thiserror::Error)]
pub enum GrpcServerError {
    /// The address is taken, or not ours.
    #[error("can't listen for peers on {address}: {source}")]
    Bind {
        /// The address that could not be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It ended by itself.
    #[error("the server for peers failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The committed schema can't be served: the build is broken.
    #[error("the schema can't be reflected: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A bound listener that does not answer yet; callers wait in its backlog.
#[derive(Debug)]
pub struct GrpcServer {
    listener: TcpListener,
    address: SocketAddr,
}

/// How often what peers are told about this pod is brought up to date.
const STATUS_PERIOD: Duration = Duration::from_millis(100);

/// Peers that wait to be accepted; as many as the standard library has.
const BACKLOG: u32 = 1024;

impl GrpcServer {
    /// Binds the address; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address can't be had.
    pub async fn bind(address: SocketAddr) -> Result<Self, GrpcServerError> {
        let bound = listen(address, BACKLOG).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (bound, listener) = bound.map_err(|source| GrpcServerError::Bind { address, source })?;
        Ok(Self { listener, address: bound })
    }

    /// Where it listens, the real port included.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers peers until `stop` is cancelled, then lets calls under way end (for two seconds at most). Dropping the future
    /// breaks every connection at once.
    ///
    /// # Errors
    /// When the server fails for good, which only a broken build or runtime makes it do.
    pub async fn serve(
        self,
        service: Arc<dyn PeerService>,
        settings: GrpcServerSettings,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<(), GrpcServerError> {
        let GrpcServerSettings { me: record, key, allow_unauthenticated, accept_previous, tls, enable_reflection } = settings;
        let me = record.id.clone();
        let pod = Arc::clone(&service);
        let inner = MessageForwardingServiceServer::new(Handler { me: me.clone(), service, metrics: Arc::clone(&metrics) });
        let unproven = allow_unauthenticated.then(|| inner.clone().max_decoding_message_size(MAX_UNPROVEN_BYTES));
        let places = Places::new(Arc::clone(&metrics));
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<MessageForwardingServiceServer<Handler>>().await;
        reporter.set_service_status(health_name(&me), ServingStatus::Serving).await;
        let reflection = enable_reflection
            .then(|| {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                    .build_v1()
            })
            .transpose()?;

        // Connections are tasks of the library's; the guard breaks them when this future is dropped, too.
        let end = CancellationToken::new();
        let _end_on_drop = end.clone().drop_guard();
        let incoming = incoming::connections(self.listener, tls, places, end.clone());
        let mut routes = Routes::new(inner.max_decoding_message_size(MAX_MESSAGE_BYTES)).add_service(health);
        if let Some(reflection) = reflection {
            routes = routes.add_service(reflection);
        }
        let (since, replays) = (crate::runtime::clock::now(), Replays::default());
        let guard = Guard::new(routes.prepare(), unproven, Judge { me: record, key, accept_previous, since, replays }, metrics);
        let serving = builder().serve_with_incoming_shutdown(guard, incoming, stop.clone().cancelled_owned());
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            ended = serving => Ok(ended?),
            () = overdue => Ok(()),
            () = tell(pod.as_ref(), &me, &reporter) => Ok(()),
        }
    }
}

/// Keeps what peers are told about this pod's room and wellness up to date.
async fn tell(pod: &dyn PeerService, me: &PodId, reporter: &HealthReporter) {
    let (mut told_room, mut told_wellness) = (None, None);
    loop {
        for (told, name, holds) in
            [(&mut told_room, room_name(me), pod.has_room()), (&mut told_wellness, wellness_name(me), pod.is_well())]
        {
            if told.replace(holds) != Some(holds) {
                let status = if holds { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status(name, status).await;
            }
        }
        tokio::time::sleep(STATUS_PERIOD).await;
    }
}

fn builder() -> Server {
    Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .timeout(CALL_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS))
        // Frees what a peer that vanished without a word had here.
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
}
