//! Every metric of the gateway, in one struct and one registry.
//!
//! The `dws_*` names are the contract's. Labels come from closed sets; a session, user, chat or subject is never one. The only label with an
//! open set is `pod`, and a peer's series are removed when the peer is.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, proto::MetricFamily,
};

/// Buckets for latencies from half a millisecond to ten seconds.
const LATENCY: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets for the lifetime of a connection, from a second to a day.
const LIFETIME: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];

/// A kind of metric that can be made from its options.
trait Make: Sized {
    fn make(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self>;
}

impl Make for IntCounter {
    fn make(name: &str, help: &str, _: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(name, help)
    }
}

impl Make for IntGauge {
    fn make(name: &str, help: &str, _: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(name, help)
    }
}

impl Make for IntCounterVec {
    fn make(name: &str, help: &str, labels: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Make for IntGaugeVec {
    fn make(name: &str, help: &str, labels: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Make for Histogram {
    fn make(name: &str, help: &str, _: &[&str], buckets: &[f64]) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    }
}

impl Make for HistogramVec {
    fn make(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
    }
}

macro_rules! metrics {
    ($($field:ident: $kind:ty = $name:literal, [$($label:literal),*], $buckets:expr, $help:literal;)*) => {
        /// The gateway's metrics. Cheap to share behind an `Arc`; each field may be used from any thread.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            /// Makes and registers every metric.
            ///
            /// # Errors
            /// Only when two metrics share a name, which a test excludes.
            pub fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let $field = <$kind as Make>::make($name, $help, &[$($label),*], $buckets)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field,)* })
            }
        }

        /// The name of every metric, for checks of dashboards and rules.
        pub const NAMES: &[&str] = &[$($name),*];
    };
}

metrics! {
    active_connections: IntGaugeVec = "dws_active_connections", ["type"], &[], "WebSocket connections that are open now.";
    connections_total: IntCounterVec = "dws_connections_total", ["type"], &[], "WebSocket connections that were opened.";
    connections_closed_total: IntCounterVec = "dws_connections_closed_total", ["type", "reason"], &[], "WebSocket connections that were closed, by reason.";
    connections_refused_total: IntCounterVec = "dws_connections_refused_total", ["type", "code"], &[], "Connects that were refused before the upgrade, by error code.";
    connection_duration_seconds: HistogramVec = "dws_connection_duration_seconds", ["type"], LIFETIME, "Lifetime of WebSocket connections.";
    connect_seconds: HistogramVec = "dws_connect_seconds", ["type", "takeover"], LATENCY, "Time from a valid request to the session's lock and routes, with or without taking the session over.";

    messages_sent_total: IntCounterVec = "dws_messages_sent_total", ["type"], &[], "Frames written to sockets, by type.";
    messages_received_total: IntCounterVec = "dws_messages_received_total", ["kind"], &[], "Events taken from the stream, by kind.";
    client_messages_total: IntCounterVec = "dws_client_messages_total", ["outcome"], &[], "Messages of clients, accepted or refused.";
    websocket_messages_dropped_total: IntCounterVec = "dws_websocket_messages_dropped_total", ["reason", "type"], &[], "Events dropped from a full mailbox, by reason and session type.";
    gaps_announced_total: IntCounterVec = "dws_gaps_announced_total", ["cause"], &[], "Gaps announced to sessions, by cause.";

    auth_success_total: IntCounterVec = "dws_auth_success_total", ["type"], &[], "Successful authentications by type (company, admin).";
    auth_failure_total: IntCounterVec = "dws_auth_failure_total", ["type", "reason"], &[], "Failed authentications by type and reason.";
    token_cache_total: IntCounterVec = "dws_token_cache_total", ["outcome"], &[], "Look-ups in the token cache: hit, miss, forged or error.";

    grpc_messages_sent_total: IntCounterVec = "dws_grpc_messages_sent_total", ["pod"], &[], "Events handed to a peer, by peer.";
    grpc_messages_received_total: IntCounter = "dws_grpc_messages_received_total", [], &[], "Events handed over by peers.";
    grpc_forward_retry_attempts_total: IntCounterVec = "dws_grpc_forward_retry_attempts_total", ["pod"], &[], "Forwarding calls tried again, by peer.";
    grpc_forward_retry_success_total: IntCounterVec = "dws_grpc_forward_retry_success_total", ["pod"], &[], "Forwarding calls that a retry saved, by peer.";
    grpc_forward_retry_failure_total: IntCounterVec = "dws_grpc_forward_retry_failure_total", ["pod"], &[], "Forwarding calls that no retry saved, by peer.";
    grpc_forward_seconds: Histogram = "dws_grpc_forward_seconds", [], LATENCY, "Time of a forwarding call that was answered.";
    grpc_pool_connections_created_total: IntCounter = "dws_grpc_pool_connections_created_total", [], &[], "Channels opened to peers.";
    grpc_pool_connections_closed_total: IntCounterVec = "dws_grpc_pool_connections_closed_total", ["reason"], &[], "Channels to peers closed, by reason.";
    grpc_pool_size: IntGauge = "dws_grpc_pool_size", [], &[], "Channels to peers that are open now.";
    grpc_circuitbreaker_tripped_total: IntCounterVec = "dws_grpc_circuitbreaker_tripped_total", ["pod"], &[], "Breakers that opened, by peer.";
    grpc_calls_refused_total: IntCounterVec = "dws_grpc_calls_refused_total", ["reason"], &[], "Calls of peers that were refused, by reason.";

    session_lock_attempts_total: IntCounterVec = "dws_session_lock_attempts_total", ["type"], &[], "Attempts to take a session's lock.";
    session_lock_success_total: IntCounterVec = "dws_session_lock_success_total", ["type"], &[], "Session locks taken.";
    session_conflicts_total: IntCounterVec = "dws_session_conflicts_total", ["type"], &[], "Connects that found the session held by another socket.";
    session_renewals_total: IntCounterVec = "dws_session_renewals_total", ["outcome"], &[], "Lock renewals: renewed, restored, lost or error.";
    session_kills_total: IntCounterVec = "dws_session_kills_total", ["outcome"], &[], "Kill orders heard: evicted, or nobody here.";

    websocket_buffer_capacity: IntGaugeVec = "dws_websocket_buffer_capacity", ["type"], &[], "Messages that the mailboxes of all open sockets may hold while their clients take no bytes.";
    websocket_buffer_used_count: IntGaugeVec = "dws_websocket_buffer_used_count", ["type"], &[], "Messages that wait in mailboxes now.";

    events_settled_total: IntCounterVec = "dws_events_settled_total", ["outcome"], &[], "Events settled with the stream: acked, retried, given up or poison.";
    events_unclaimed_total: IntCounterVec = "dws_events_unclaimed_total", ["kind"], &[], "Events that no live pod had a route for.";
    events_duplicate_total: IntCounter = "dws_events_duplicate_total", [], &[], "Redeliveries recognised, and not shown to sockets again.";
    events_redelivered_total: IntCounter = "dws_events_redelivered_total", [], &[], "Events taken from the stream that had been delivered before.";
    events_in_flight: IntGauge = "dws_events_in_flight", [], &[], "Events taken from the stream and not settled.";
    events_parked: IntGaugeVec = "dws_events_parked", ["pod"], &[], "Events that wait for a peer to be reachable again, by peer.";
    event_delivery_seconds: HistogramVec = "dws_event_delivery_seconds", ["path"], LATENCY, "Time from the stream's timestamp to a mailbox, by path (local, forwarded).";

    routes_wanted: IntGauge = "dws_routes_wanted", [], &[], "Routes that sockets of this pod are on.";
    route_writes_total: IntCounterVec = "dws_route_writes_total", ["outcome"], &[], "Batches of route changes written, or failed.";
    route_lookups_total: IntCounterVec = "dws_route_lookups_total", ["outcome"], &[], "Batches of route look-ups: trusted, settling or error.";
    peers: IntGaugeVec = "dws_peers", ["state"], &[], "Other pods known: alive, or lapsed.";
    dependency_up: IntGaugeVec = "dws_dependency_up", ["dependency"], &[], "Whether NATS and Redis answer.";
    config_reloads_total: IntCounterVec = "dws_config_reloads_total", ["outcome"], &[], "Configuration reloads, applied or refused.";
    task_panics_total: IntCounter = "dws_task_panics_total", [], &[], "Tasks that panicked.";
}

impl Metrics {
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
        self.registry.gather()
    }

    /// Removes the series of a peer that is gone.
    pub fn forget_peer(&self, pod: &str) {
        let of_peer = [
            &self.grpc_messages_sent_total,
            &self.grpc_forward_retry_attempts_total,
            &self.grpc_forward_retry_success_total,
            &self.grpc_forward_retry_failure_total,
            &self.grpc_circuitbreaker_tripped_total,
        ];
        for series in of_peer {
            let _ = series.remove_label_values(&[pod]);
        }
        let _ = self.events_parked.remove_label_values(&[pod]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_prefixed() {
        let metrics = Metrics::new().unwrap();
        assert!(NAMES.iter().all(|name| name.starts_with("dws_")));
        metrics.events_unclaimed_total.with_label_values(&["chat"]).inc();
        assert!(String::from_utf8(metrics.encode().unwrap()).unwrap().contains("dws_events_unclaimed_total{kind=\"chat\"} 1"));
    }

    #[test]
    fn series_of_a_peer_go_with_it() {
        let metrics = Metrics::new().unwrap();
        metrics.grpc_messages_sent_total.with_label_values(&["pod-b"]).inc();
        metrics.events_parked.with_label_values(&["pod-b"]).set(1);
        metrics.forget_peer("pod-b");
        assert!(!String::from_utf8(metrics.encode().unwrap()).unwrap().contains("pod-b"));
    }
}
