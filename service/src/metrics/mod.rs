//! Every metric of the gateway, in one struct and one registry.
//!
//! The `dws_*` names are those of the predecessor, so that dashboards go on. Labels come from closed sets; a session, user, chat
//! or subject is never one. The only label with an open set is `pod`, and a peer's series are removed when the peer is. Every
//! other series is there from the start, at 0.

mod kinds;
pub(crate) mod labels;
mod peers;
#[cfg(target_os = "linux")]
mod process;
mod runtime;
mod sharded;

use std::sync::{Mutex, MutexGuard, OnceLock};

use daisi_ws_domain::{
    close::{CloseReason, ErrorCode},
    event::EventKind,
    frame::FrameKind,
    gap::GapCause,
    moving::MoveReason,
    session::SessionKind,
};
pub(crate) use kinds::Spec;
use kinds::{AGE, DELIVERY, LATENCY, LIFETIME, Make, NONE};
use labels::{
    AuthFailure, CallRefused, ClientMessage, ConnectionCut, Direction, Dropped, EvictionWay, KeyKind, KillHeard, Lenience, Limit,
    Listener, LivePath, LockRenewal, Login, MemoryKind, MoveOutcome, PeerState, PendingEnded, PodConnection, PoolClosed, ReadBy,
    RedisCommand, Relief, Reloaded, ReplayCause, ResumeOutcome, RouteLookup, RouteWrite, SteppedBack, Takeover, TokenShared,
    values,
};
use prometheus::{
    Counter, Encoder, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
    proto::MetricFamily,
};
pub(crate) use sharded::{SettledAs, ShardedCounters};
use sharded::{Shards, Shown};

use tokio::runtime::Handle;

use crate::readiness::Dependency;

/// The peers of the pod.
const PEERS: &[&str] = &[];

macro_rules! metrics {
    ($($field:ident: $kind:ty = $name:literal, [$($label:literal: $values:expr),*], $buckets:expr, $help:literal;)*) => {
        /// The gateway's metrics. Cheap to share behind an `Arc`; each field may be used from any thread.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            recording: bool,
            runtimes: Mutex<Vec<Handle>>,
            shards: OnceLock<Shards>,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            fn register(recording: bool) -> prometheus::Result<Self> {
                let registry = Registry::new();
                let mut specs = SPECS.iter();
                $(
                    let spec = specs.next().ok_or_else(|| prometheus::Error::Msg("fewer specs than metrics".to_owned()))?;
                    let $field = <$kind as Make>::make(spec, $help)?;
                    $field.touch_all(spec);
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, recording, shards: OnceLock::new(), runtimes: Mutex::default(), $($field,)* })
            }
        }

        /// Every metric of ours, for checks of dashboards, rules and the number of series.
        pub const SPECS: &[Spec] =
            &[$(Spec { name: $name, labels: &[$(($label, $values)),*], buckets: $buckets }),*];
    };
}

metrics! {
    active_connections: IntGaugeVec = "dws_active_connections", ["type": values!(SessionKind)], NONE,
        "WebSocket connections that are open now.";
    connections_total: IntCounterVec = "dws_connections_total", ["type": values!(SessionKind)], NONE,
        "WebSocket connections that were opened.";
    connections_closed_total: IntCounterVec = "dws_connections_closed_total",
        ["type": values!(SessionKind), "reason": values!(CloseReason)], NONE,
        "WebSocket connections that were closed, by reason.";
    connections_refused_total: IntCounterVec = "dws_connections_refused_total",
        ["type": values!(SessionKind), "code": values!(ErrorCode)], NONE,
        "Connects that were refused before the upgrade, by error code.";
    rate_limited_total: IntCounterVec = "dws_rate_limited_total", ["limit": values!(Limit)], NONE,
        "Requests that got 429 before the upgrade, by limit: connects of a session, an address or a company, or failed \
        authentications of an address.";
    http_pending: IntGaugeVec = "dws_http_pending_connections", ["listener": values!(Listener)], NONE,
        "HTTP connections whose request is not known yet, or who have not read their answer, by listener.";
    http_pending_ended_total: IntCounterVec = "dws_http_pending_connections_ended_total",
        ["listener": values!(Listener), "reason": values!(PendingEnded)], NONE,
        "Such connections that were ended for newer ones: an address had its share, all places were taken, or the system had \
        run out of descriptors.";
    connections_limit: IntGauge = "dws_connections_limit", [], NONE,
        "WebSocket connections that this pod may have (app.max_connections).";
    connection_duration_seconds: HistogramVec = "dws_connection_duration_seconds", ["type": values!(SessionKind)], LIFETIME,
        "Lifetime of WebSocket connections.";
    connect_seconds: HistogramVec = "dws_connect_seconds", ["type": values!(SessionKind), "takeover": values!(Takeover)], LATENCY,
        "Time from a valid request to the session's lock and routes, with or without taking the session over.";

    messages_sent_total: IntCounterVec = "dws_messages_sent_total", ["type": values!(FrameKind)], NONE,
        "Frames written to sockets, by type.";
    messages_received_total: IntCounterVec = "dws_messages_received_total", ["kind": values!(EventKind)], NONE,
        "Events taken from the stream, by kind.";
    websocket_bytes_total: IntCounterVec = "dws_websocket_bytes_total", ["direction": values!(Direction)], NONE,
        "Bytes of WebSocket messages read and written, without framing.";
    client_messages_total: IntCounterVec = "dws_client_messages_total", ["outcome": values!(ClientMessage)], NONE,
        "Messages of clients, accepted or refused.";
    websocket_messages_dropped_total: IntCounterVec = "dws_websocket_messages_dropped_total",
        ["reason": values!(Dropped), "type": values!(SessionKind)], NONE,
        "Events that waited for a socket and were not written: its mailbox was full, the pod was past its memory budget, or its \
        goodbye was cut; by reason and session type.";
    gaps_announced_total: IntCounterVec = "dws_gaps_announced_total", ["cause": values!(GapCause)], NONE,
        "Gaps announced to sessions, by cause.";
    gaps_mended_total: IntCounterVec = "dws_gaps_mended_total", ["cause": values!(GapCause)], NONE,
        "Gaps of sessions that were read again from the stream and not announced, by cause.";
    resumes_total: IntCounterVec = "dws_resumes_total", ["outcome": values!(ResumeOutcome)], NONE,
        "Clients that came back with a cursor, by what became of it.";
    resume_cursor_age_seconds: Histogram = "dws_resume_cursor_age_seconds", [], AGE,
        "Age of the cursors with which clients come back, reckoned from the events since then and the stream's mean rate.";
    replayed_events_total: IntCounterVec = "dws_replayed_events_total", ["why": values!(ReplayCause)], NONE,
        "Events read again from the stream for a session: it resumed, or had a gap.";
    replay_reads_total: IntCounterVec = "dws_replay_reads_total", ["by": values!(ReadBy)], NONE,
        "Reads of a route's events: from a span of the stream that was read for many at once, or by route.";
    replay_seconds: HistogramVec = "dws_replay_seconds", ["why": values!(ReplayCause)], LATENCY,
        "Time from a session's turn until what it missed is read.";
    replays_in_flight: IntGaugeVec = "dws_replays_in_flight", ["why": values!(ReplayCause)], NONE,
        "Sessions that are read for now.";
    stream_window_seconds: Gauge = "dws_stream_window_seconds", [], NONE, "Age of the oldest event that the stream still has.";
    stream_window_events: IntGauge = "dws_stream_window_events", [], NONE, "Events that the stream has.";
    stream_full: IntGauge = "dws_stream_full", [], NONE, "Whether the stream has let go of its oldest events.";
    safe_lag_seconds: Gauge = "dws_safe_lag_seconds", [], NONE,
        "For how long the place in the stream that frames carry has stood behind what is settled.";

    auth_success_total: IntCounterVec = "dws_auth_success_total", ["type": values!(Login)], NONE,
        "Successful authentications by type (company, admin).";
    auth_failure_total: IntCounterVec = "dws_auth_failure_total", ["type": values!(Login), "reason": values!(AuthFailure)], NONE,
        "Failed authentications by type and reason.";
    token_cache_total: IntCounterVec = "dws_token_cache_total", ["outcome": values!(TokenShared)], NONE,
        "Opened tokens that were to be left in Redis for pods of the predecessor: shared or error.";

    grpc_messages_sent_total: IntCounterVec = "dws_grpc_messages_sent_total", ["pod": PEERS], NONE,
        "Events handed to a peer, by peer.";
    grpc_messages_received_total: IntCounter = "dws_grpc_messages_received_total", [], NONE, "Events handed over by peers.";
    grpc_forward_retry_attempts_total: IntCounterVec = "dws_grpc_forward_retry_attempts_total", ["pod": PEERS], NONE,
        "Forwarding calls tried again, by peer.";
    grpc_forward_retry_success_total: IntCounterVec = "dws_grpc_forward_retry_success_total", ["pod": PEERS], NONE,
        "Forwarding calls that a retry saved, by peer.";
    grpc_forward_retry_failure_total: IntCounterVec = "dws_grpc_forward_retry_failure_total", ["pod": PEERS], NONE,
        "Forwarding calls that no retry saved, by peer.";
    grpc_forward_seconds: Histogram = "dws_grpc_forward_seconds", [], LATENCY, "Time of a forwarding call that was answered.";
    grpc_pool_connections_created_total: IntCounter = "dws_grpc_pool_connections_created_total", [], NONE,
        "Channels opened to peers.";
    grpc_pool_connections_closed_total: IntCounterVec = "dws_grpc_pool_connections_closed_total",
        ["reason": values!(PoolClosed)], NONE,
        "Channels to peers closed, by reason.";
    grpc_pool_size: IntGauge = "dws_grpc_pool_size", [], NONE, "Channels to peers that are open now.";
    grpc_circuitbreaker_tripped_total: IntCounterVec = "dws_grpc_circuitbreaker_tripped_total", ["pod": PEERS], NONE,
        "Breakers that opened, by peer.";
    grpc_circuitbreaker_open: IntGaugeVec = "dws_grpc_circuitbreaker_open", ["pod": PEERS], NONE,
        "Whether the breaker is open or probing, by peer.";
    grpc_lenient: IntGaugeVec = "dws_grpc_lenient", ["setting": values!(Lenience)], NONE,
        "Whether a setting is on that takes less of other pods than a proof of each call and answer.";
    pod_records_unproved_total: IntCounter = "dws_pod_records_unproved_total", [], NONE,
        "Times that a record of a pod in the session store was passed over, as it is not of this fleet.";
    grpc_connections: IntGaugeVec = "dws_grpc_connections", ["standing": values!(PodConnection)], NONE,
        "Connections that others opened to the port for pods, by whether a call of them was proved.";
    grpc_connections_cut_total: IntCounterVec = "dws_grpc_connections_cut_total", ["reason": values!(ConnectionCut)], NONE,
        "Connections of others that were cut: no proved call came in time, too many bytes or calls before one, or too many were \
        there.";
    grpc_calls_refused_total: IntCounterVec = "dws_grpc_calls_refused_total", ["reason": values!(CallRefused)], NONE,
        "Calls of peers that were refused, by reason.";

    session_lock_attempts_total: IntCounterVec = "dws_session_lock_attempts_total", ["type": values!(SessionKind)], NONE,
        "Attempts to take a session's lock.";
    session_lock_success_total: IntCounterVec = "dws_session_lock_success_total", ["type": values!(SessionKind)], NONE,
        "Session locks taken.";
    session_conflicts_total: IntCounterVec = "dws_session_conflicts_total", ["type": values!(SessionKind)], NONE,
        "Connects that found the session held by another socket.";
    session_renewals_total: IntCounterVec = "dws_session_renewals_total", ["outcome": values!(LockRenewal)], NONE,
        "Lock renewals: renewed, restored, lost, in dispute or error.";
    session_kills_total: IntCounterVec = "dws_session_kills_total", ["outcome": values!(KillHeard)], NONE,
        "Kill orders heard: evicted, or nobody here.";
    session_evictions_total: IntCounterVec = "dws_session_evictions_total", ["way": values!(EvictionWay)], NONE,
        "Owners of sessions that were asked to let go, on this pod, on a peer that answered, or over the kill channel.";
    session_moves_total: IntCounterVec = "dws_session_moves_total",
        ["reason": values!(MoveReason), "outcome": values!(MoveOutcome)], NONE,
        "Clients that were asked to move: asked, moved, or closed as their time was over; by reason.";

    sockets_ratio: Gauge = "dws_sockets_ratio", [], NONE,
        "Sockets of this pod over the average of the pods that do not drain, as reckoned last to even them out; 0 where that is \
        not known.";

    websocket_buffer_capacity: IntGaugeVec = "dws_websocket_buffer_capacity", ["type": values!(SessionKind)], NONE,
        "Messages that the mailboxes of all open sockets may hold while their clients take no bytes.";
    websocket_buffer_used_count: IntGaugeVec = "dws_websocket_buffer_used_count", ["type": values!(SessionKind)], NONE,
        "Messages that wait in mailboxes now.";

    memory_budget_bytes: IntGauge = "dws_memory_budget_bytes", [], NONE,
        "Bytes that the pod may hold for events on their way and for what clients are sending (app.memory_budget_bytes, else \
        half of what the container may have).";
    memory_used_bytes: IntGaugeVec = "dws_memory_used_bytes", ["kind": values!(MemoryKind)], NONE,
        "Bytes that the pod holds of that, by kind: encoded events for sockets, each once; the places of long mailboxes; \
        messages of clients that are not whole; compression of sockets' own; events taken from the stream and not settled.";
    memory_relieved_sockets_total: IntCounterVec = "dws_memory_relieved_sockets_total", ["how": values!(Relief)], NONE,
        "Times that a slow socket gave way because the pod held more than it may: what waited was dropped with a gap, or it was \
        closed.";

    events_settled_total: IntCounterVec = "dws_events_settled_total", ["outcome": values!(SettledAs)], NONE,
        "Events settled with the stream: acked, retried, given up or poison.";
    events_unclaimed_total: IntCounterVec = "dws_events_unclaimed_total", ["kind": values!(EventKind)], NONE,
        "Events that no live pod had a route for.";
    events_duplicate_total: IntCounter = "dws_events_duplicate_total", [], NONE,
        "Redeliveries recognised, and not shown to sockets again.";
    events_forgotten_total: IntCounter = "dws_events_forgotten_total", [], NONE,
        "Events that were taken and are not settled, and that the pod had no room to remember: a redelivery of one comes twice.";
    events_redelivered_total: IntCounter = "dws_events_redelivered_total", [], NONE,
        "Events taken from the stream that had been delivered before.";
    events_in_flight: IntGauge = "dws_events_in_flight", [], NONE, "Events taken from the stream and not settled.";
    events_passed_on_total: IntCounter = "dws_events_passed_on_total", [], NONE,
        "Events given back to the stream at once because this pod could not bring them to others in time and another pod may.";
    events_parked: IntGaugeVec = "dws_events_parked", ["pod": PEERS], NONE,
        "Events that wait for a peer to be reachable again, by peer.";
    gaps_owed: IntGaugeVec = "dws_gaps_owed", ["pod": PEERS], NONE,
        "Gaps that a peer's sessions are still to be told of, by peer.";
    event_delivery_seconds: HistogramVec = "dws_event_delivery_seconds", ["path": values!(LivePath)], DELIVERY,
        "Time from the stream's timestamp to the write to a socket, once an event and socket, by path (local, forwarded).";
    event_end_to_end_seconds: HistogramVec = "dws_event_end_to_end_seconds", ["path": values!(LivePath)], DELIVERY,
        "Time from the publisher's event_time to the write to a socket, once an event and socket, by path; events without a \
        readable event_time are left out.";

    consumer_pending: IntGauge = "dws_consumer_pending", [], NONE,
        "Events in the stream that the shared consumer has not delivered yet; every pod shows the fleet's.";
    consumer_ack_pending: IntGauge = "dws_consumer_ack_pending", [], NONE,
        "Events that the shared consumer has delivered and that are not settled, parked ones included; every pod shows the \
        fleet's.";
    consumer_ack_pending_limit: IntGauge = "dws_consumer_ack_pending_limit", [], NONE,
        "Events that may be unsettled over the fleet; at this number the stream delivers nothing new.";

    redis_command_seconds: HistogramVec = "dws_redis_command_seconds", ["command": values!(RedisCommand)], LATENCY,
        "Time of a command, script or pipeline to Redis, the wait for a connection included.";
    redis_command_errors_total: IntCounterVec = "dws_redis_command_errors_total", ["command": values!(RedisCommand)], NONE,
        "Commands, scripts or pipelines to Redis that failed or were not answered in time.";
    redis_may_evict: IntGauge = "dws_redis_may_evict", [], NONE,
        "Whether Redis may throw keys away when its memory is full (maxmemory with a policy other than noeviction).";
    redis_evicted_keys_total: IntCounter = "dws_redis_evicted_keys_total", [], NONE,
        "Keys that Redis was seen to have thrown away for want of memory, no matter whose they were.";

    redis_keys_refused_total: IntCounterVec = "dws_redis_keys_refused_total", ["kind": values!(KeyKind)], NONE,
        "Times that a key of Redis held something else than what pods write there: a lock, a route, a token, or a key of the \
        fleet.";

    routes_wanted: IntGauge = "dws_routes_wanted", [], NONE, "Routes that sockets of this pod are on.";
    route_writes_total: IntCounterVec = "dws_route_writes_total", ["outcome": values!(RouteWrite)], NONE,
        "Batches of route changes written, or failed.";
    route_lookups_total: IntCounterVec = "dws_route_lookups_total", ["outcome": values!(RouteLookup)], NONE,
        "Batches of route look-ups: trusted, settling or error.";
    stepped_back: IntGaugeVec = "dws_stepped_back", ["reason": values!(SteppedBack)], NONE,
        "Whether the pod leaves events to other pods, because the store is slow for it or its peers do not answer.";
    peers: IntGaugeVec = "dws_peers", ["state": values!(PeerState)], NONE,
        "Other pods: alive, lapsed (known, without a liveness key), or unknown (members without one of which nobody here has \
        heard).";
    dependency_up: IntGaugeVec = "dws_dependency_up", ["dependency": values!(Dependency)], NONE,
        "Whether NATS and Redis answer, and the server for peers serves.";
    ready: IntGauge = "dws_ready", [], NONE,
        "Whether the pod wants connections: every dependency is there, it does not drain, and it has room or no other pod has.";
    full: IntGauge = "dws_full", [], NONE,
        "Whether the pod has all the sockets it may have; it is ready all the same where no other pod has room.";
    draining: IntGauge = "dws_draining", [], NONE, "Whether the pod drains.";
    config_reloads_total: IntCounterVec = "dws_config_reloads_total", ["outcome": values!(Reloaded)], NONE,
        "Configuration reloads, applied or refused.";
    config_keys_waiting: IntGauge = "dws_config_keys_waiting", [], NONE,
        "Keys with another value in the file or environment than the one in force, which stays until a restart.";
    task_panics_total: IntCounter = "dws_task_panics_total", [], NONE, "Tasks that panicked.";
    log_lines_dropped_total: IntCounter = "dws_log_lines_dropped_total", [], NONE,
        "Log lines that were dropped, as their reader did not take them in time.";
    log_audit_lines_dropped_total: IntCounter = "dws_log_audit_lines_dropped_total", [], NONE,
        "Audit lines among the log lines that were dropped.";
    log_lines_suppressed_total: IntCounter = "dws_log_lines_suppressed_total", [], NONE,
        "Log lines that were left out for a line with their number, as too many of one kind came.";
    tokio_workers: IntGauge = "dws_tokio_workers", [], NONE, "Worker threads of the runtimes, those of sockets included.";
    tokio_alive_tasks: IntGauge = "dws_tokio_alive_tasks", [], NONE, "Tasks that have not ended.";
    tokio_global_queue_depth: IntGauge = "dws_tokio_global_queue_depth", [], NONE,
        "Tasks that wait in the runtimes' global queues.";
    tokio_busy_seconds_total: Counter = "dws_tokio_busy_seconds_total", [], NONE, "Time that all workers together were busy.";
    build_info: IntGaugeVec = "dws_build_info", ["version": VERSIONS, "revision": REVISIONS], NONE,
        "1, with the version and revision that run.";
}

/// What runs here.
const VERSIONS: &[&str] = &[env!("CARGO_PKG_VERSION")];
const REVISIONS: &[&str] = &[match option_env!("DAISI_WS_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
}];

/// What is said of the process, on Linux.
pub const PROCESS: &[&str] = &[
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
];

impl Metrics {
    /// Makes and registers every metric.
    ///
    /// # Errors
    /// Only when two metrics share a name, which a test excludes.
    pub fn new() -> prometheus::Result<Self> {
        Self::with(true)
    }

    /// Makes and registers every metric; if not `recording`, what happens once an event or a delivery is neither counted nor
    /// timed.
    ///
    /// # Errors
    /// Only when two metrics share a name, which a test excludes.
    pub fn with(recording: bool) -> prometheus::Result<Self> {
        let metrics = Self::register(recording)?;
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(process::Process::of_self()?))?;
        metrics.build_info.with_label_values(&[VERSIONS[0], REVISIONS[0]]).set(1);
        Ok(metrics)
    }

    /// Shall events and deliveries be counted and timed?
    #[must_use]
    pub(crate) fn recording(&self) -> bool {
        self.recording
    }

    /// What this thread counts with every event and delivery. To be held for a moment: anyone who looks at the metrics waits for
    /// it.
    pub(crate) fn sharded(&self) -> MutexGuard<'_, ShardedCounters> {
        self.shards().mine()
    }

    fn shards(&self) -> &Shards {
        self.shards.get_or_init(|| {
            Shards::new(&Shown {
                bytes: &self.websocket_bytes_total,
                sent: &self.messages_sent_total,
                received: &self.messages_received_total,
                settled: &self.events_settled_total,
                delivery: &self.event_delivery_seconds,
                end_to_end: &self.event_end_to_end_seconds,
            })
        })
    }

    /// Adds what threads have counted by themselves to what the fields show. Before anything is read from a field that a
    /// [`ShardedCounters`] counts for.
    pub fn flush(&self) {
        self.shards().flush();
    }

    /// Everything in the Prometheus text format, version 0.0.4.
    ///
    /// # Errors
    /// When a metric can't be encoded.
    pub fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.gather(), &mut text)?;
        Ok(text)
    }

    /// Everything as protocol messages, for tests.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.flush();
        self.read_runtime();
        self.read_log();
        self.registry.gather()
    }
}

#[cfg(test)]
mod tests;
