//! How pods are configured in a run: shorter times than the defaults', in the same proportions.

use std::{sync::OnceLock, time::Duration};

use daisi_ws_service::{
    adapters::memory::stream::StreamOptions,
    config::{Config, DropPolicy, OutagePolicy, Secret, Yaml},
};
use figment::{Figment, providers::Format as _};
use serde::{Deserialize, Serialize};

use crate::draw::Draw;

/// What differs from the shipped defaults. Times are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Life of a lock; it is renewed each third of it.
    pub session_ttl: u64,
    /// Life of a route.
    pub route_ttl: u64,
    /// Life of a pod's liveness key.
    pub pod_ttl: u64,
    /// Of the consumer; a call to a peer may take half of it.
    pub ack_wait: u64,
    /// Of the consumer.
    pub max_ack_pending: usize,
    /// Events taken in one pull.
    pub pull_batch: usize,
    /// Messages that wait for a socket that takes no bytes.
    pub buffer_messages: usize,
    /// The same in bytes.
    pub buffer_bytes: usize,
    /// Bytes that wait for a socket in any case.
    pub burst_bytes: usize,
    /// Nothing is dropped for a slow socket; it is closed.
    pub block: bool,
    /// A socket that takes no bytes for this long is closed.
    pub write_timeout: u64,
    /// Sockets whose lock can't be renewed are closed.
    pub strict: bool,
    /// Sockets of one pod.
    pub max_connections: usize,
    /// Deliveries after which an event for a peer out of reach is given up.
    pub max_deliveries: u64,
    /// Age at which it is.
    pub max_age: u64,
    /// How long a breaker stays open at first.
    pub breaker_open: u64,
    /// A drain ends after this long.
    pub shutdown: u64,
    /// From so many that wait on, a span of the stream is read for all.
    #[serde(default = "some")]
    pub window_clients: usize,
}

/// As plans had it that do not say.
fn some() -> usize {
    8
}

fn defaults() -> anyhow::Result<Config> {
    static DEFAULTS: OnceLock<Config> = OnceLock::new();
    if let Some(config) = DEFAULTS.get() {
        return Ok(config.clone());
    }
    let text = include_str!("../../../service/config/default.yaml");
    let config: Config = Figment::from(Yaml::string(text)).extract()?;
    Ok(DEFAULTS.get_or_init(|| config).clone())
}

impl Settings {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        let ack_wait = draw.between(4, 8);
        Self {
            session_ttl: 3 * draw.between(4, 6),
            route_ttl: 60,
            pod_ttl: draw.between(3, 5),
            ack_wait,
            max_ack_pending: draw.pick(&[60, 200, 1000]),
            pull_batch: draw.pick(&[16, 64, 256]),
            buffer_messages: draw.pick(&[8, 30, 100]),
            buffer_bytes: draw.pick(&[2048, 16 * 1024]),
            burst_bytes: draw.pick(&[16 * 1024, 128 * 1024]),
            block: draw.chance(0.25),
            write_timeout: draw.between(5, 15),
            strict: draw.chance(0.25),
            max_connections: if draw.chance(0.1) { 4 } else { 1000 },
            max_deliveries: draw.between(6, 20),
            max_age: draw.between(20, 40),
            breaker_open: draw.between(5, 15),
            shutdown: draw.between(12, 20),
            // All that is drawn later stays as it was.
            window_clients: draw.clone().pick(&[1, 1, 2, 8]),
        }
    }

    /// As a pod has them.
    ///
    /// # Errors
    /// When the shipped defaults are no configuration.
    pub fn config(&self) -> anyhow::Result<Config> {
        let mut config = defaults()?;
        let seconds = Duration::from_secs;
        config.auth.secret_token = Secret::new("browser-key-0123456789");
        config.auth.token_generation_admin_key = Secret::new("minting-key-0123456789");
        config.auth.token_aes_key = Secret::new("0f".repeat(32));
        config.auth.admin_token_aes_key = Secret::new("f0".repeat(32));
        config.adaptive_ttl.message_route.enabled = false;
        let app = &mut config.app;
        app.session_ttl = seconds(self.session_ttl);
        app.ttl_refresh_interval = self.refresh();
        app.route_ttl = seconds(self.route_ttl);
        app.pod_ttl = seconds(self.pod_ttl);
        app.nats_ack_wait = seconds(self.ack_wait);
        app.grpc_client_forward_timeout = seconds(self.ack_wait) / 2;
        app.nats_max_ack_pending = self.max_ack_pending;
        app.nats_pull_batch = self.pull_batch;
        app.websocket_message_buffer_size = self.buffer_messages;
        app.websocket_buffer_max_bytes = self.buffer_bytes;
        app.websocket_burst_max_bytes = self.burst_bytes.max(self.buffer_bytes);
        app.websocket_backpressure_drop_policy = if self.block { DropPolicy::Block } else { DropPolicy::DropOldest };
        app.write_timeout = seconds(self.write_timeout);
        app.redis_outage_policy = if self.strict { OutagePolicy::Strict } else { OutagePolicy::Available };
        app.max_connections = self.max_connections;
        app.memory_budget_bytes = 64 << 20;
        app.forward_max_deliveries = self.max_deliveries;
        app.forward_max_age = seconds(self.max_age);
        app.grpc_circuitbreaker_open_duration = seconds(self.breaker_open);
        app.shutdown_timeout = seconds(self.shutdown);
        config.resume.window_min_clients = self.window_clients;
        Ok(config)
    }

    /// How often locks and routes are renewed.
    #[must_use]
    pub fn refresh(&self) -> Duration {
        Duration::from_secs(self.session_ttl / 3)
    }

    /// The consumer that goes with it.
    #[must_use]
    pub fn stream(&self) -> StreamOptions {
        StreamOptions {
            ack_wait: Duration::from_secs(self.ack_wait),
            max_ack_pending: self.max_ack_pending,
            ..StreamOptions::default()
        }
    }
}
