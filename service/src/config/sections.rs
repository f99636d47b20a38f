//! One struct a section. Field names are the keys of the YAML file; durations are `Duration` inside, seconds outside.

mod app;

use std::{fmt, path::PathBuf, time::Duration};

use daisi_ws_domain::{network::Network, origin::OriginPattern};
pub use daisi_ws_websocket::negotiate::CompressionMode;
use serde::{Deserialize, Serialize};

pub use self::app::{AdaptiveTtl, App, DropPolicy, OutagePolicy, TtlRule};
use super::{
    Secret, redact,
    units::{milliseconds, path_or_nothing, seconds, texts},
};

/// Everything that is configured. Immutable once loaded; a reload makes a new one.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listeners and identity of this pod.
    pub server: Server,
    /// How many, and how often, before a socket is open.
    pub limits: Limits,
    /// The event stream.
    pub nats: Nats,
    /// The session store.
    pub redis: Redis,
    /// Keys and tokens.
    pub auth: Auth,
    /// Sessions, sockets and forwarding.
    pub app: App,
    /// Reading the stream again.
    pub resume: Resume,
    /// Moving clients from pods with more sockets than others.
    pub rebalance: Rebalance,
    /// Times to live that follow activity.
    pub adaptive_ttl: AdaptiveTtl,
    /// Logs and traces.
    pub telemetry: Telemetry,
}

/// Listeners and identity of this pod. All but `ready_grace`, `allowed_origins` and `trusted_proxies` need a restart.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address that listeners bind which have none of their own.
    pub bind_address: std::net::IpAddr,
    /// Port for browsers, health, metrics and the token API; 0 picks a free one.
    pub http_port: u16,
    /// Address that the listener for other pods binds; empty: `bind_address`.
    pub grpc_bind_address: String,
    /// Port for other pods; 0 picks a free one.
    pub grpc_port: u16,
    /// Address that the listener for probes binds; empty: `bind_address`.
    pub probe_bind_address: String,
    /// Port for `/health`, `/ready` and `/metrics`, which are on `http_port` too; 0: there alone.
    pub probe_port: u16,
    /// Unique name of this pod; empty: the host's name and `grpc_port`.
    pub pod_id: String,
    /// Host or `host:port` that peers dial; empty: `pod_id` if it is an address, else this host's, with `grpc_port`.
    pub grpc_advertise_address: String,
    /// Accept `PushEvent` from pods that can't prove that they belong (the predecessor's).
    pub grpc_allow_unauthenticated: bool,
    /// Get on with pods of the version before, whose calls are proved less and whose answers and records not at all.
    pub grpc_accept_previous: bool,
    /// This pod's certificate for other pods, with its chain (PEM), with `grpc_tls_key_file` and `grpc_tls_ca_file`.
    #[serde(deserialize_with = "path_or_nothing")]
    pub grpc_tls_certificate_file: Option<PathBuf>,
    /// Its key (PEM).
    #[serde(deserialize_with = "path_or_nothing")]
    pub grpc_tls_key_file: Option<PathBuf>,
    /// The authorities that pods' certificates are checked with (PEM).
    #[serde(deserialize_with = "path_or_nothing")]
    pub grpc_tls_ca_file: Option<PathBuf>,
    /// Name in every pod's certificate; empty: the host of the address that is dialled.
    pub grpc_tls_server_name: String,
    /// Serve gRPC reflection.
    pub enable_reflection: bool,
    /// Let the kernel write core dumps of this process, and its user's debuggers attach.
    pub core_dumps: bool,
    /// Origins that browsers may come from; empty: any.
    #[serde(deserialize_with = "texts")]
    pub allowed_origins: Vec<OriginPattern>,
    /// Networks of proxies whose word on their clients' addresses is believed; empty: none.
    #[serde(deserialize_with = "texts")]
    pub trusted_proxies: Vec<Network>,
    /// Have trusted proxies say whom they speak for before the first byte of HTTP.
    pub proxy_protocol: ProxyProtocol,
    /// Serve the browser client at `/client.js`.
    pub serve_client: bool,
    /// A dependency may be away this long before `/ready` says so.
    #[serde(rename = "ready_grace_seconds", with = "seconds")]
    pub ready_grace: Duration,
}

/// Whether connections begin with a PROXY protocol header that says who the client is.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// Connections begin with HTTP.
    Off,
    /// Trusted proxies have to, and nobody else may.
    Required,
}

/// How many, and how often, before a socket is open. A rate of 0 is no limit.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections whose request is not known yet, or who have not read their answer.
    pub pending_connections: usize,
    /// The same of one address; 0: no share.
    pub pending_connections_per_address: usize,
    /// Connects of a session in a minute.
    pub connects_per_session_per_minute: u32,
    /// Connects of a session at once.
    pub connects_per_session_burst: u32,
    /// Connects of an address in a second.
    pub connects_per_address_per_second: u32,
    /// Connects of an address at once.
    pub connects_per_address_burst: u32,
    /// Connects of a company's users in a second.
    pub connects_per_company_per_second: u32,
    /// Connects of a company's users at once.
    pub connects_per_company_burst: u32,
    /// Failed authentications of an address in a minute.
    pub failures_per_address_per_minute: u32,
    /// Failed authentications of an address at once.
    pub failures_per_address_burst: u32,
}

/// The event stream: where it is, as whom, and which durable.
#[derive(Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// Server URLs, separated by commas.
    pub url: String,
    /// Stream; created where missing.
    pub stream_name: String,
    /// Durable pull consumer, shared by all pods; created where missing.
    pub consumer_name: String,
    /// First token of every subject.
    pub subject_prefix: String,
    /// First tokens of the subjects on which the server answers this pod.
    pub inbox_prefix: String,
    /// Keep trying when the first connect fails; if not, that ends the start.
    pub retry_on_failed_connect: bool,
    /// User, with `password`.
    pub user: String,
    /// Password of `user`.
    pub password: Secret,
    /// Token, instead of user and password.
    pub token: Secret,
    /// Credentials file (JWT and seed), instead of both.
    #[serde(deserialize_with = "path_or_nothing")]
    pub credentials_file: Option<PathBuf>,
    /// Requires TLS, whatever the URL says.
    pub tls: bool,
    /// CA bundle (PEM) for TLS; empty: the platform's.
    #[serde(deserialize_with = "path_or_nothing")]
    pub ca_file: Option<PathBuf>,
    /// Age at which a stream that we create drops events.
    #[serde(rename = "stream_max_age_seconds", with = "seconds")]
    pub stream_max_age: Duration,
    /// Size at which a stream that we create drops its oldest events.
    pub stream_max_bytes: u64,
    /// Replicas of a stream that we create.
    pub stream_replicas: usize,
}

/// The session store: where it is, as whom, and how long its answers may take.
#[derive(Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `host:port`.
    pub address: String,
    /// ACL user; empty: the default user.
    pub username: String,
    /// Password; empty: none is sent.
    pub password: Secret,
    /// Database number; chosen on each connection.
    pub db: u32,
    /// Speaks TLS to the server.
    pub tls: bool,
    /// CA bundle (PEM) for TLS; empty: the bundled roots.
    #[serde(deserialize_with = "path_or_nothing")]
    pub ca_file: Option<PathBuf>,
    /// Connections for commands.
    pub pool_size: u32,
    /// Longest wait for a connection, and for an answer.
    #[serde(rename = "command_timeout_ms", with = "milliseconds")]
    pub command_timeout: Duration,
    /// Cap of the back-off between two attempts on a lock.
    #[serde(rename = "session_lock_retry_delay_ms", with = "milliseconds")]
    pub session_lock_retry_delay: Duration,
}

/// Keys and tokens. Keys need a restart.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// API key of browsers.
    pub secret_token: Secret,
    /// AES-256 key of user tokens, 64 hex characters.
    pub token_aes_key: Secret,
    /// AES-256 key of admin tokens, 64 hex characters.
    pub admin_token_aes_key: Secret,
    /// API key of the minter of tokens.
    pub token_generation_admin_key: Secret,
    /// Longest life of a token made by the token API, and longest rest of the life of one that is accepted.
    #[serde(rename = "max_token_ttl_seconds", with = "seconds")]
    pub max_token_ttl: Duration,
    /// Whether opened tokens are left for pods of the predecessor.
    pub token_cache: TokenCacheKind,
    /// How long an opened user token is left there.
    #[serde(rename = "token_cache_ttl_seconds", with = "seconds")]
    pub token_cache_ttl: Duration,
    /// How long an opened admin token is left there.
    #[serde(rename = "admin_token_cache_ttl_seconds", with = "seconds")]
    pub admin_token_cache_ttl: Duration,
}

/// Whether opened tokens are left for pods of the predecessor. Each is opened here in any case, before anybody is asked or told.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TokenCacheKind {
    /// In Redis, where they look.
    Redis,
    /// As `Off`: opening takes less than finding.
    Memory,
    /// They are not.
    Off,
}

/// Logs and traces: how much, in which form, and whereto.
#[derive(Clone, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Filter of logs, as in `info,daisi_ws_service=debug`.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// OTLP endpoint (gRPC) for traces; empty: off.
    pub otlp_endpoint: String,
    /// Share of traces that are recorded where the publisher did not decide, 0 to 1.
    pub sample_ratio: f64,
    /// Count and time every event and delivery; off only to measure what that costs.
    pub metrics: bool,
}

/// How log lines look: JSON for machines, text for people.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// JSON, but text on a terminal.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

macro_rules! debug_without_userinfo {
    ($($section:ident),*) => {$(
        /// URLs may carry a user and password, so this shows what the redacted dump shows.
        impl fmt::Debug for $section {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", stringify!($section), redact::tree(self))
            }
        }
    )*};
}

debug_without_userinfo!(Nats, Redis, Telemetry);

/// Reading the stream again: for clients that come back with a cursor, and for gaps.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Events that are replayed to a client at most.
    pub max_events: usize,
    /// Bytes of payloads that are replayed to a client at most; one event may have more.
    pub max_bytes: usize,
    /// Clients whose missed events are read at a time.
    pub max_in_flight: usize,
    /// Longest wait for a turn, and then for the stream.
    #[serde(rename = "timeout_seconds", with = "seconds")]
    pub timeout: Duration,
    /// From so many that wait on, the stream may be read whole for all of them.
    pub window_min_clients: usize,
    /// Bytes that are held of it at most; 0 is never.
    pub window_max_bytes: usize,
}

/// Moving clients from pods with more sockets than others.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rebalance {
    /// Ask clients that can move to do so while this pod has clearly more sockets than the average.
    pub enabled: bool,
}
