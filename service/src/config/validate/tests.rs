use std::borrow::Cow;

use super::*;
use crate::config::testing;

fn breaches(change: impl FnOnce(&mut Config)) -> Vec<Cow<'static, str>> {
    let mut config = testing::config();
    change(&mut config);
    validate(&config, Secrets::Required).into_iter().map(|(key, _)| key).collect()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A change and the keys that it breaks.
type Case = (fn(&mut Config), &'static [&'static str]);

fn check(cases: &[Case]) {
    for (index, (change, keys)) in cases.iter().enumerate() {
        assert_eq!(breaches(change), *keys, "case {index}");
    }
}

#[test]
fn times_have_to_fit_each_other() {
    check(&[
        (|c| c.app.ttl_refresh_interval = s(15), &["app.ttl_refresh_interval_seconds"]),
        (|c| c.app.ttl_refresh_interval = s(14), &[]),
        (|c| c.app.route_ttl = s(20), &["app.route_ttl_seconds"]),
        (|c| c.app.pod_ttl = s(2), &["app.pod_ttl_seconds"]),
        (|c| c.app.pong_wait = s(20), &["app.pong_wait_seconds"]),
        (|c| c.adaptive_ttl.session_lock.enabled = true, &[]),
        (|c| c.adaptive_ttl.session_lock.min_ttl = s(31), &["adaptive_ttl.session_lock.max_ttl_seconds"]),
        (|c| c.adaptive_ttl.message_route.min_ttl = s(10), &["adaptive_ttl.message_route.min_ttl_seconds"]),
        (|c| c.adaptive_ttl.message_route.activity_threshold = s(0), &["adaptive_ttl.message_route.activity_threshold_seconds"]),
    ]);
}

#[test]
fn sizes_and_shares_have_bounds() {
    check(&[
        (|c| c.app.websocket_message_buffer_size = 0, &["app.websocket_message_buffer_size"]),
        (|c| c.app.websocket_burst_max_bytes = 0, &["app.websocket_burst_max_bytes"]),
        (|c| c.app.websocket_burst_total_bytes = 0, &["app.websocket_burst_total_bytes"]),
        (|c| c.app.memory_budget_bytes = 0, &[]),
        (|c| c.app.memory_budget_bytes = 1 << 20, &["app.memory_budget_bytes"]),
        (|c| c.app.write_timeout = s(0), &["app.write_timeout_seconds"]),
        (|c| c.limits.pending_connections = 15, &["limits.pending_connections"]),
        (|c| c.limits.pending_connections_per_address = 0, &[]),
        (|c| c.limits.connects_per_session_burst = 0, &["limits.connects_per_session_burst"]),
        (|c| (c.limits.connects_per_session_per_minute, c.limits.connects_per_session_burst) = (0, 0), &[]),
        (|c| c.limits.connects_per_company_per_second = 1_000_001, &["limits.connects_per_company_per_second"]),
        (|c| c.app.nats_pull_batch = 5001, &["app.nats_pull_batch"]),
        (|c| c.app.forward_parked_share_percent = 101, &["app.forward_parked_share_percent"]),
        (|c| c.telemetry.sample_ratio = 1.5, &["telemetry.sample_ratio"]),
        (|c| c.telemetry.sample_ratio = f64::NAN, &["telemetry.sample_ratio"]),
        (|c| c.nats.stream_replicas = 6, &["nats.stream_replicas"]),
        (|c| c.nats.stream_max_bytes = u64::MAX, &["nats.stream_max_bytes"]),
        (|c| c.auth.token_cache_ttl = s(0), &[]),
        (
            |c| {
                c.auth.token_cache_ttl = s(0);
                c.auth.token_cache = TokenCacheKind::Redis;
            },
            &["auth.token_cache_ttl_seconds"],
        ),
    ]);
}

#[test]
fn names_and_addresses_are_checked() {
    check(&[
        (|c| c.server.pod_id = "a/b".into(), &["server.pod_id"]),
        (|c| c.server.grpc_port = 8080, &["server.grpc_port"]),
        (|c| (c.server.http_port, c.server.grpc_port) = (0, 0), &[]),
        (|c| c.server.probe_port = 8081, &[]),
        (|c| c.server.probe_port = 8080, &["server.probe_port"]),
        (|c| c.server.probe_port = 50051, &["server.probe_port"]),
        (|c| c.server.probe_bind_address = "::".into(), &[]),
        (|c| c.server.grpc_bind_address = "localhost".into(), &["server.grpc_bind_address"]),
        (|c| c.server.proxy_protocol = ProxyProtocol::Required, &["server.proxy_protocol"]),
        (
            |c| {
                c.server.proxy_protocol = ProxyProtocol::Required;
                c.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
            },
            &[],
        ),
        (|c| c.server.grpc_advertise_address = "pod-1".into(), &[]),
        (|c| c.server.grpc_advertise_address = "fd00::1".into(), &[]),
        (|c| c.server.grpc_advertise_address = "fd00::1:50051".into(), &["server.grpc_advertise_address"]),
        (|c| c.server.grpc_advertise_address = "http://pod-1".into(), &["server.grpc_advertise_address"]),
        (|c| c.nats.url = String::new(), &["nats.url"]),
        (|c| c.nats.stream_name = "wa.stream".into(), &["nats.stream_name"]),
        (|c| c.nats.subject_prefix = "wa.>".into(), &["nats.subject_prefix"]),
        (|c| c.nats.inbox_prefix = "_INBOX_gateway".into(), &[]),
        (|c| c.nats.inbox_prefix = "_INBOX.>".into(), &["nats.inbox_prefix"]),
        (|c| c.nats.inbox_prefix = String::new(), &["nats.inbox_prefix"]),
        (|c| c.nats.inbox_prefix = "wa.inbox".into(), &["nats.inbox_prefix"]),
        (|c| c.nats.inbox_prefix = "wax".into(), &[]),
        (|c| c.redis.address = "redis://redis:6379".into(), &["redis.address"]),
        (|c| c.redis.ca_file = Some("/ca.pem".into()), &["redis.ca_file"]),
        (
            |c| c.server.grpc_tls_certificate_file = Some("/tls.crt".into()),
            &["server.grpc_tls_certificate_file", "server.grpc_tls_key_file", "server.grpc_tls_ca_file"],
        ),
        (|c| c.server.grpc_tls_server_name = "pods".to_owned(), &["server.grpc_tls_server_name"]),
        (|c| c.telemetry.otlp_endpoint = "collector:4317".into(), &["telemetry.otlp_endpoint"]),
        (|c| c.telemetry.otlp_endpoint = "http://collector:4317".into(), &[]),
        (|c| c.telemetry.log_level = "verbose".into(), &["telemetry.log_level"]),
    ]);
}

#[test]
fn one_way_to_log_in_is_enough() {
    check(&[
        (|c| c.nats.password = "p".into_secret(), &["nats.password"]),
        (|c| c.redis.username = "gateway".into(), &["redis.username"]),
        (
            |c| {
                c.nats.user = "joe".into();
                c.nats.token = "t".into_secret();
            },
            &["nats.user"],
        ),
        (
            |c| {
                c.nats.token = "t".into_secret();
                c.nats.credentials_file = Some("/nats.creds".into());
            },
            &["nats.user"],
        ),
    ]);
}

trait IntoSecret {
    fn into_secret(self) -> super::super::Secret;
}

impl IntoSecret for &str {
    fn into_secret(self) -> super::super::Secret {
        super::super::Secret::new(self)
    }
}
