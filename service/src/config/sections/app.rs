//! Sessions, sockets and forwarding.

use std::time::Duration;

use daisi_ws_websocket::negotiate::CompressionMode;
use serde::{Deserialize, Serialize};

use crate::config::units::seconds;

/// Sessions, sockets and forwarding: times, limits and policies of what the product does.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Life of a session lock without renewal.
    #[serde(rename = "session_ttl_seconds", with = "seconds")]
    pub session_ttl: Duration,
    /// Life of a route without renewal.
    #[serde(rename = "route_ttl_seconds", with = "seconds")]
    pub route_ttl: Duration,
    /// How often locks and routes are renewed.
    #[serde(rename = "ttl_refresh_interval_seconds", with = "seconds")]
    pub ttl_refresh_interval: Duration,
    /// How long a selected chat is remembered after its session ended.
    #[serde(rename = "selected_chat_ttl_seconds", with = "seconds")]
    pub selected_chat_ttl: Duration,
    /// Life of a pod's liveness key without renewal.
    #[serde(rename = "pod_ttl_seconds", with = "seconds")]
    pub pod_ttl: Duration,
    /// Messages that wait for a socket that takes no bytes.
    pub websocket_message_buffer_size: usize,
    /// Bytes that wait for a socket that takes no bytes.
    pub websocket_buffer_max_bytes: usize,
    /// Bytes that wait for a socket in any case.
    pub websocket_burst_max_bytes: usize,
    /// Bytes that the pod holds for all its sockets before bursts are not allowed any more.
    pub websocket_burst_total_bytes: usize,
    /// Bytes that the pod holds for events on their way and for what clients are sending; 0: see
    /// [`MemoryBudget`](crate::config::MemoryBudget).
    pub memory_budget_bytes: usize,
    /// What happens when they are more.
    pub websocket_backpressure_drop_policy: DropPolicy,
    /// How often a ping goes out.
    #[serde(rename = "ping_interval_seconds", with = "seconds")]
    pub ping_interval: Duration,
    /// A socket from which nothing is heard for this long is closed.
    #[serde(rename = "pong_wait_seconds", with = "seconds")]
    pub pong_wait: Duration,
    /// A socket that takes no bytes for this long is closed.
    #[serde(rename = "write_timeout_seconds", with = "seconds")]
    pub write_timeout: Duration,
    /// Compression of events.
    pub websocket_compression_mode: CompressionMode,
    /// Events of fewer bytes are not compressed.
    pub websocket_compression_threshold: usize,
    /// Longest message of a client, in bytes.
    pub max_message_bytes: usize,
    /// Messages a second of a client.
    pub client_messages_per_second: u32,
    /// Messages at once of a client.
    pub client_message_burst: u32,
    /// Bytes a second of a client, compressed and inflated ones.
    pub client_bytes_per_second: u32,
    /// Sockets that this pod may have; one more is refused with 503.
    pub max_connections: usize,
    /// Close a socket when its token runs out.
    pub close_on_token_expiry: bool,
    /// What happens to sockets whose lock can't be renewed.
    pub redis_outage_policy: OutagePolicy,
    /// Read what a session missed again from the stream before a gap is announced.
    pub gap_repair: bool,
    /// Longest wait for a peer's answer.
    #[serde(rename = "grpc_client_forward_timeout_seconds", with = "seconds")]
    pub grpc_client_forward_timeout: Duration,
    /// A channel unused for this long is closed.
    #[serde(rename = "grpc_pool_idle_timeout_seconds", with = "seconds")]
    pub grpc_pool_idle_timeout: Duration,
    /// How often idle channels are looked for and the others' health is asked.
    #[serde(rename = "grpc_pool_health_check_interval_seconds", with = "seconds")]
    pub grpc_pool_health_check_interval: Duration,
    /// Failures in a row that open a peer's breaker.
    pub grpc_circuitbreaker_fail_threshold: u32,
    /// How long it stays open at first.
    #[serde(rename = "grpc_circuitbreaker_open_duration_seconds", with = "seconds")]
    pub grpc_circuitbreaker_open_duration: Duration,
    /// Deliveries after which an event that a live peer does not take is given up.
    pub forward_max_deliveries: u64,
    /// Age at which it is given up.
    #[serde(rename = "forward_max_age_seconds", with = "seconds")]
    pub forward_max_age: Duration,
    /// Share of max-ack-pending that events for one peer out of reach may hold, queued or parked, over the fleet, in percent.
    pub forward_parked_share_percent: u32,
    /// Ack wait of a consumer that we create.
    #[serde(rename = "nats_ack_wait_seconds", with = "seconds")]
    pub nats_ack_wait: Duration,
    /// Max-ack-pending of a consumer that we create.
    pub nats_max_ack_pending: usize,
    /// Events taken in one pull.
    pub nats_pull_batch: usize,
    /// A shutdown ends after this long, come what may.
    #[serde(rename = "shutdown_timeout_seconds", with = "seconds")]
    pub shutdown_timeout: Duration,
}

/// What happens when a mailbox is full.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DropPolicy {
    /// The oldest event makes room and a gap is announced in its place.
    DropOldest,
    /// Nothing is dropped; a socket that does not catch up within the write time-out is closed. With `gap_repair` one that
    /// reads catches up from the stream.
    Block,
}

/// What happens to sockets whose lock can't be renewed within its TTL.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OutagePolicy {
    /// They stay: two pods may write for one session until Redis is back.
    Available,
    /// They are closed with 1013.
    Strict,
}

/// Times to live that follow activity.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveTtl {
    /// Of session locks.
    pub session_lock: TtlRule,
    /// Of message routes.
    pub message_route: TtlRule,
}

/// One adaptive time to live.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TtlRule {
    /// Off: the fixed TTL of `app` is used.
    pub enabled: bool,
    /// Time to live of what was idle for the threshold.
    #[serde(rename = "min_ttl_seconds", with = "seconds")]
    pub min_ttl: Duration,
    /// Time to live of what is active.
    #[serde(rename = "max_ttl_seconds", with = "seconds")]
    pub max_ttl: Duration,
    /// How long something counts as active.
    #[serde(rename = "activity_threshold_seconds", with = "seconds")]
    pub activity_threshold: Duration,
}
