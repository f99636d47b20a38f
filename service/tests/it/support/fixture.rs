//! A whole configuration for tests that start from less than the shipped defaults, and the keys in it.

use std::{sync::Arc, time::Duration};

use daisi_ws_service::{
    application::{
        auth::{Authenticator, TokenKeys},
        mint::{AdminTokenRequest, Minter, UserTokenRequest},
    },
    config::Config,
    metrics::Metrics,
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The browsers' API key.
pub(crate) const API_KEY: &str = "browsers-hold-this-key";
/// The key of the token API.
pub(crate) const MINT_KEY: &str = "only-the-back-end-holds-this-key";
/// The longest life of a token.
pub(crate) const MAX_TOKEN_TTL: u64 = 86_400;

/// The configuration, valid in every part.
pub(crate) fn config() -> Config {
    serde_json::from_value(json!({
        "server": server(), "nats": nats(), "redis": redis(), "auth": auth(), "app": app(),
        "adaptive_ttl": { "session_lock": ttl_rule(), "message_route": ttl_rule() },
        "telemetry": { "log_level": "info", "log_format": "auto", "otlp_endpoint": "", "sample_ratio": 0.0 },
    }))
    .unwrap()
}

fn server() -> Value {
    json!({
        "bind_address": "127.0.0.1", "http_port": 0, "grpc_port": 0, "pod_id": "pod-a", "grpc_advertise_address": "",
        "grpc_allow_unauthenticated": false, "enable_reflection": false, "allowed_origins": [], "ready_grace_seconds": 3,
    })
}

fn nats() -> Value {
    json!({
        "url": "nats://localhost:4222", "stream_name": "wa_stream", "consumer_name": "ws_fanout", "subject_prefix": "wa",
        "retry_on_failed_connect": true, "user": "", "password": "", "token": "", "credentials_file": null, "tls": false,
        "ca_file": null, "stream_max_age_seconds": 3600, "stream_max_bytes": 1_000_000, "stream_replicas": 1,
    })
}

fn redis() -> Value {
    json!({
        "address": "localhost:6379", "username": "", "password": "", "db": 0, "tls": false, "ca_file": null, "pool_size": 8,
        "command_timeout_ms": 500, "session_lock_retry_delay_ms": 100,
    })
}

fn auth() -> Value {
    json!({
        "secret_token": API_KEY, "token_generation_admin_key": MINT_KEY, "token_aes_key": "11".repeat(32),
        "admin_token_aes_key": "22".repeat(32), "max_token_ttl_seconds": MAX_TOKEN_TTL, "token_cache": "off",
        "token_cache_ttl_seconds": 30, "admin_token_cache_ttl_seconds": 60,
    })
}

fn app() -> Value {
    json!({
        "session_ttl_seconds": 30, "route_ttl_seconds": 300, "ttl_refresh_interval_seconds": 10, "selected_chat_ttl_seconds": 3600,
        "pod_ttl_seconds": 5, "websocket_message_buffer_size": 100, "websocket_buffer_max_bytes": 1_000_000,
        "websocket_backpressure_drop_policy": "drop_oldest", "ping_interval_seconds": 20, "pong_wait_seconds": 60,
        "write_timeout_seconds": 30, "websocket_compression_mode": "disabled", "websocket_compression_threshold": 1024,
        "max_message_bytes": 65536, "client_messages_per_second": 20, "client_message_burst": 40, "max_connections": 1000,
        "close_on_token_expiry": false, "redis_outage_policy": "available", "grpc_client_forward_timeout_seconds": 5,
        "grpc_pool_idle_timeout_seconds": 300, "grpc_pool_health_check_interval_seconds": 60,
        "grpc_circuitbreaker_fail_threshold": 5, "grpc_circuitbreaker_open_duration_seconds": 30, "forward_max_deliveries": 10,
        "forward_max_age_seconds": 60, "forward_parked_share_percent": 5, "nats_ack_wait_seconds": 10,
        "nats_max_ack_pending": 5000, "nats_pull_batch": 100, "shutdown_timeout_seconds": 30,
    })
}

fn ttl_rule() -> Value {
    json!({ "enabled": false, "min_ttl_seconds": 30, "max_ttl_seconds": 60, "activity_threshold_seconds": 60 })
}

/// A request for a token of `user` at `company` and `agent` that lives for a minute.
pub(crate) fn user_request(company: &str, agent: &str, user: &str) -> UserTokenRequest {
    UserTokenRequest { company_id: company.into(), agent_id: agent.into(), user_id: user.into(), expires_in_seconds: 60 }
}

/// A request for a token of an admin that sees all, for a minute.
pub(crate) fn admin_request(admin: &str) -> AdminTokenRequest {
    AdminTokenRequest {
        admin_id: admin.into(),
        expires_in_seconds: 60,
        subscribed_company_id: None,
        subscribed_agent_id: None,
        company_id_restriction: None,
    }
}

/// A token of `user`, as the fixture's keys and the real clock make it.
pub(crate) fn user_token(company: &str, agent: &str, user: &str) -> String {
    minter(daisi_ws_service::clock::now).user(&user_request(company, agent, user), Duration::from_secs(60)).unwrap()
}

/// A token of an admin that sees all.
pub(crate) fn admin_token(admin: &str) -> String {
    minter(daisi_ws_service::clock::now).admin(&admin_request(admin), Duration::from_secs(60)).unwrap()
}

/// Makes tokens with the fixture's keys, by the given clock.
pub(crate) fn minter(clock: fn() -> Duration) -> Minter {
    Minter::new(TokenKeys::parse(&config().auth).unwrap(), clock)
}

/// An authenticator of the fixture's keys without a cache, and its metrics.
pub(crate) fn authenticator(config: Config, metrics: &Arc<Metrics>) -> Arc<Authenticator> {
    let (_, config) = watch::channel(Arc::new(config));
    Arc::new(Authenticator::new(config, None, Arc::clone(metrics), daisi_ws_service::clock::now).unwrap())
}
