//! What a configuration must hold to beyond its types, all of it checked, each breach by its key.

mod addresses;
mod bounds;
mod breaches;
mod secrets;

use std::time::Duration;

use daisi_ws_domain::ids::PodId;

pub(super) use self::breaches::Breach;
use self::breaches::Breaches;
use super::{App, Auth, Config, Limits, Nats, ProxyProtocol, Redis, Resume, Secrets, Server, Telemetry, TokenCacheKind, TtlRule};

use addresses::is_host;
pub(super) use addresses::is_host_and_port;

/// The shortest life of a pod's liveness key: it is renewed three times in its life, and a second is the least that a pause may
/// last.
const MIN_POD_TTL: Duration = Duration::from_secs(3);

/// With less, a burst of large events alone would have sockets closed.
const MIN_MEMORY_BUDGET: usize = 16 << 20;

/// Everything that is wrong. No reason has a value in it that may be secret.
pub(super) fn validate(config: &Config, needed: Secrets) -> Vec<Breach> {
    let mut breaches = Breaches(Vec::new());
    server(&config.server, &mut breaches);
    limits(&config.limits, &mut breaches);
    nats(&config.nats, &mut breaches);
    redis(&config.redis, &mut breaches);
    auth(&config.auth, &mut breaches);
    lifetimes(config, &mut breaches);
    sockets(&config.app, &mut breaches);
    forwarding(&config.app, &mut breaches);
    resume(&config.resume, &mut breaches);
    telemetry(&config.telemetry, &mut breaches);
    bounds::check(config, &mut breaches);
    secrets::check(config, needed, &mut breaches);
    breaches.0
}

fn count(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

fn server(server: &Server, breaches: &mut Breaches) {
    if !server.pod_id.is_empty()
        && let Err(error) = PodId::parse(&server.pod_id)
    {
        breaches.require(false, "server.pod_id", format!("is not valid: {error}"));
    }
    breaches.require(
        server.grpc_port == 0 || server.grpc_port != server.http_port,
        "server.grpc_port",
        "must be another port than server.http_port",
    );
    breaches.require(
        server.probe_port == 0 || ![server.http_port, server.grpc_port].contains(&server.probe_port),
        "server.probe_port",
        "must be another port than server.http_port and server.grpc_port",
    );
    let own =
        [("server.grpc_bind_address", &server.grpc_bind_address), ("server.probe_bind_address", &server.probe_bind_address)];
    for (key, address) in own {
        let fits = address.is_empty() || address.parse::<std::net::IpAddr>().is_ok();
        breaches.require(fits, key, "must be an IP address, or empty");
    }
    breaches.require(
        server.proxy_protocol == ProxyProtocol::Off || !server.trusted_proxies.is_empty(),
        "server.proxy_protocol",
        "needs server.trusted_proxies: from anybody else it would let a client choose its address",
    );
    let advertised = &server.grpc_advertise_address;
    breaches.require(
        advertised.is_empty() || is_host_and_port(advertised) || is_host(advertised),
        "server.grpc_advertise_address",
        "must be host or host:port without a scheme, as in 10.1.2.3:50051 or [fd00::1]:50051",
    );
    grpc_tls(server, breaches);
}

/// Half of TLS is none.
fn grpc_tls(server: &Server, breaches: &mut Breaches) {
    let files = [
        ("server.grpc_tls_certificate_file", &server.grpc_tls_certificate_file),
        ("server.grpc_tls_key_file", &server.grpc_tls_key_file),
        ("server.grpc_tls_ca_file", &server.grpc_tls_ca_file),
    ];
    let is_on = files.iter().any(|(_, file)| file.is_some());
    let is_whole = files.iter().all(|(_, file)| file.is_some());
    for (key, _) in files {
        breaches.require(
            is_whole || !is_on,
            key,
            "is set without another of the three, or not set: TLS between pods takes a certificate, its key and the authorities",
        );
    }
    let name = &server.grpc_tls_server_name;
    breaches.require(
        name.is_empty() || is_on,
        "server.grpc_tls_server_name",
        "has no effect unless server.grpc_tls_certificate_file is set",
    );
    breaches.require(name.is_empty() || is_host(name), "server.grpc_tls_server_name", "must be a host's name");
}

fn limits(limits: &Limits, breaches: &mut Breaches) {
    // A pod with fewer places would turn away anyone who is on its way, not only who says nothing.
    breaches.require(limits.pending_connections >= 16, "limits.pending_connections", "must be at least 16");
    let burst_of = [
        ("limits.connects_per_session_burst", limits.connects_per_session_per_minute, limits.connects_per_session_burst),
        ("limits.connects_per_address_burst", limits.connects_per_address_per_second, limits.connects_per_address_burst),
        ("limits.connects_per_company_burst", limits.connects_per_company_per_second, limits.connects_per_company_burst),
        ("limits.failures_per_address_burst", limits.failures_per_address_per_minute, limits.failures_per_address_burst),
    ];
    for (key, rate, burst) in burst_of {
        breaches.require(rate == 0 || burst >= 1, key, "must be at least 1, or nobody could come in");
    }
}

fn nats(nats: &Nats, breaches: &mut Breaches) {
    breaches.require(
        !nats.url.is_empty() && nats.url.split(',').all(|url| addresses::is_url(url.trim(), &["nats", "tls", "ws", "wss"], true)),
        "nats.url",
        "must be one or more URLs as in nats://host:4222, separated by commas",
    );
    breaches.require(addresses::is_stream_name(&nats.stream_name), "nats.stream_name", NAME_RULE);
    breaches.require(addresses::is_stream_name(&nats.consumer_name), "nats.consumer_name", NAME_RULE);
    breaches.require(
        addresses::is_subject_prefix(&nats.subject_prefix),
        "nats.subject_prefix",
        "must be a token, or tokens with dots between them, without white space, wildcards (* and >) or a leading $",
    );
    breaches.require(
        addresses::is_subject_prefix(&nats.inbox_prefix),
        "nats.inbox_prefix",
        "must be a token, or tokens with dots between them, without white space, wildcards (* and >) or a leading $",
    );
    // The stream would store each answer of the server as an event.
    let starts_with =
        |text: &str, prefix: &str| text.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    breaches.require(
        !starts_with(&nats.inbox_prefix, &nats.subject_prefix),
        "nats.inbox_prefix",
        "must not begin with nats.subject_prefix, or the stream would store the server's answers",
    );
    let has_user = !nats.user.is_empty();
    let ways = [has_user, !nats.token.is_empty(), nats.credentials_file.is_some()];
    breaches.require(
        ways.iter().filter(|way| **way).count() <= 1,
        "nats.user",
        "must not be set together with nats.token or nats.credentials_file, nor these two together: choose one way to log in",
    );
    breaches.require(nats.password.is_empty() || has_user, "nats.password", "needs nats.user");
    breaches.not_zero(&[("nats.stream_max_age_seconds", nats.stream_max_age)]);
    breaches.require(nats.stream_max_bytes >= 1, "nats.stream_max_bytes", "must be at least 1");
    breaches.require((1..=5).contains(&nats.stream_replicas), "nats.stream_replicas", "must be 1 to 5");
}

const NAME_RULE: &str = "must not be empty nor have white space or any of . * > / \\";

fn redis(redis: &Redis, breaches: &mut Breaches) {
    breaches.require(
        is_host_and_port(&redis.address),
        "redis.address",
        "must be host:port without a scheme, as in redis:6379; user and password have keys of their own",
    );
    breaches.require(redis.username.is_empty() || !redis.password.is_empty(), "redis.username", "needs redis.password");
    breaches.require(redis.ca_file.is_none() || redis.tls, "redis.ca_file", "has no effect unless redis.tls is on");
    breaches.at_least_one(&[("redis.pool_size", redis.pool_size.into())]);
    breaches.not_zero(&[
        ("redis.command_timeout_ms", redis.command_timeout),
        ("redis.session_lock_retry_delay_ms", redis.session_lock_retry_delay),
    ]);
}

fn auth(auth: &Auth, breaches: &mut Breaches) {
    breaches.not_zero(&[("auth.max_token_ttl_seconds", auth.max_token_ttl)]);
    if auth.token_cache == TokenCacheKind::Redis {
        breaches.not_zero(&[
            ("auth.token_cache_ttl_seconds", auth.token_cache_ttl),
            ("auth.admin_token_cache_ttl_seconds", auth.admin_token_cache_ttl),
        ]);
    }
}

/// Times to live, and the renewals that have to come in time.
fn lifetimes(config: &Config, breaches: &mut Breaches) {
    let app = &config.app;
    breaches.not_zero(&[
        ("app.session_ttl_seconds", app.session_ttl),
        ("app.route_ttl_seconds", app.route_ttl),
        ("app.ttl_refresh_interval_seconds", app.ttl_refresh_interval),
        ("app.selected_chat_ttl_seconds", app.selected_chat_ttl),
    ]);
    breaches.require(app.pod_ttl >= MIN_POD_TTL, "app.pod_ttl_seconds", "must be at least 3");
    // Fewer than two renewals in a life, and a single one that fails costs the session.
    breaches.require(
        app.ttl_refresh_interval.saturating_mul(2) < app.session_ttl,
        "app.ttl_refresh_interval_seconds",
        "must be less than half of app.session_ttl_seconds",
    );
    breaches.require(
        app.ttl_refresh_interval.saturating_mul(2) < app.route_ttl,
        "app.route_ttl_seconds",
        "must be more than twice app.ttl_refresh_interval_seconds",
    );
    let adaptive = &config.adaptive_ttl;
    rule(
        &adaptive.session_lock,
        app.ttl_refresh_interval,
        [
            "adaptive_ttl.session_lock.min_ttl_seconds",
            "adaptive_ttl.session_lock.max_ttl_seconds",
            "adaptive_ttl.session_lock.activity_threshold_seconds",
        ],
        breaches,
    );
    rule(
        &adaptive.message_route,
        app.ttl_refresh_interval,
        [
            "adaptive_ttl.message_route.min_ttl_seconds",
            "adaptive_ttl.message_route.max_ttl_seconds",
            "adaptive_ttl.message_route.activity_threshold_seconds",
        ],
        breaches,
    );
}

fn rule(rule: &TtlRule, refresh: Duration, [min, max, threshold]: [&'static str; 3], breaches: &mut Breaches) {
    breaches.not_zero(&[(min, rule.min_ttl), (threshold, rule.activity_threshold)]);
    breaches.require(rule.min_ttl <= rule.max_ttl, max, format!("must not be less than {min}"));
    // The predecessor's 15 s with a renewal every 10 s must pass, so one renewal in a life has to do here.
    breaches.require(!rule.enabled || refresh < rule.min_ttl, min, "must be more than app.ttl_refresh_interval_seconds");
}

fn sockets(app: &App, breaches: &mut Breaches) {
    breaches.at_least_one(&[
        ("app.websocket_message_buffer_size", count(app.websocket_message_buffer_size)),
        ("app.websocket_buffer_max_bytes", count(app.websocket_buffer_max_bytes)),
        ("app.websocket_burst_max_bytes", count(app.websocket_burst_max_bytes)),
        ("app.websocket_burst_total_bytes", count(app.websocket_burst_total_bytes)),
        ("app.max_message_bytes", count(app.max_message_bytes)),
        ("app.client_messages_per_second", app.client_messages_per_second.into()),
        ("app.client_message_burst", app.client_message_burst.into()),
        ("app.client_bytes_per_second", app.client_bytes_per_second.into()),
        ("app.max_connections", count(app.max_connections)),
    ]);
    breaches.not_zero(&[
        ("app.ping_interval_seconds", app.ping_interval),
        ("app.write_timeout_seconds", app.write_timeout),
        ("app.shutdown_timeout_seconds", app.shutdown_timeout),
    ]);
    breaches.require(
        app.memory_budget_bytes == 0 || app.memory_budget_bytes >= MIN_MEMORY_BUDGET,
        "app.memory_budget_bytes",
        "must be 0 or at least 16777216",
    );
    breaches.require(app.pong_wait > app.ping_interval, "app.pong_wait_seconds", "must be more than app.ping_interval_seconds");
}

fn forwarding(app: &App, breaches: &mut Breaches) {
    breaches.not_zero(&[
        ("app.grpc_client_forward_timeout_seconds", app.grpc_client_forward_timeout),
        ("app.grpc_pool_idle_timeout_seconds", app.grpc_pool_idle_timeout),
        ("app.grpc_pool_health_check_interval_seconds", app.grpc_pool_health_check_interval),
        ("app.grpc_circuitbreaker_open_duration_seconds", app.grpc_circuitbreaker_open_duration),
        ("app.forward_max_age_seconds", app.forward_max_age),
        ("app.nats_ack_wait_seconds", app.nats_ack_wait),
    ]);
    breaches.at_least_one(&[
        ("app.grpc_circuitbreaker_fail_threshold", app.grpc_circuitbreaker_fail_threshold.into()),
        ("app.forward_max_deliveries", app.forward_max_deliveries),
        ("app.nats_max_ack_pending", count(app.nats_max_ack_pending)),
        ("app.nats_pull_batch", count(app.nats_pull_batch)),
    ]);
    breaches.require(
        (1..=100).contains(&app.forward_parked_share_percent),
        "app.forward_parked_share_percent",
        "must be 1 to 100",
    );
    breaches.require(
        app.nats_pull_batch <= app.nats_max_ack_pending,
        "app.nats_pull_batch",
        "must not be more than app.nats_max_ack_pending",
    );
}

fn resume(resume: &Resume, breaches: &mut Breaches) {
    breaches.at_least_one(&[
        ("resume.max_events", count(resume.max_events)),
        ("resume.max_bytes", count(resume.max_bytes)),
        ("resume.max_in_flight", count(resume.max_in_flight)),
        ("resume.window_min_clients", count(resume.window_min_clients)),
    ]);
    breaches.not_zero(&[("resume.timeout_seconds", resume.timeout)]);
}

fn telemetry(telemetry: &Telemetry, breaches: &mut Breaches) {
    if let Err(error) = crate::telemetry::filter(&telemetry.log_level) {
        breaches.require(false, "telemetry.log_level", format!("is no filter: {error}"));
    }
    breaches.require((0.0..=1.0).contains(&telemetry.sample_ratio), "telemetry.sample_ratio", "must be 0 to 1");
    let endpoint = &telemetry.otlp_endpoint;
    breaches.require(
        endpoint.is_empty() || addresses::is_url(endpoint, &["http"], false),
        "telemetry.otlp_endpoint",
        "must be the URL of an OTLP collector without TLS, as in http://collector:4317",
    );
}

#[cfg(test)]
mod tests;
