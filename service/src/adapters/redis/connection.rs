//! Connections to Redis: how one is made, the pool that carries commands, and when one is thrown away.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bb8_redis::bb8;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo,
    RedisError, RedisResult, ServerErrorKind, TlsCertificates,
    aio::{MultiplexedConnection, PubSub},
    io::tcp::TcpSettings,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{application::ports::StoreError, config, metrics::Metrics};

/// The section `redis` can't be meant like this.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not `host:port`.
    #[error("redis.address: {0:?} is not host:port")]
    Address(String),
    /// The file can't be read.
    #[error("redis.ca_file: can't read {path}")]
    CaFile {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client does not take it, certificates included.
    #[error("redis: the client refuses these settings")]
    Client(#[source] RedisError),
    /// A pool without connections, or an answer in no time.
    #[error("redis.{0} must be more than 0")]
    Zero(&'static str),
}

// === making one ===

/// Knows how to connect. Every connection it makes, and every answer on it, is bounded by the same time-out.
pub(super) struct Connector {
    client: Client,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(config: &config::Redis) -> Result<Self, ConfigError> {
        if config.pool_size == 0 {
            return Err(ConfigError::Zero("pool_size"));
        }
        if config.command_timeout.is_zero() {
            return Err(ConfigError::Zero("command_timeout_ms"));
        }
        let (host, port) = split_address(&config.address).ok_or_else(|| ConfigError::Address(config.address.clone()))?;
        // RESP2: nothing here needs RESP3, and older servers and proxies do not speak it.
        let mut settings = RedisConnectionInfo::default()
            .set_db(i64::from(config.db))
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        if !config.username.is_empty() {
            settings = settings.set_username(&config.username);
        }
        if !config.password.is_empty() {
            settings = settings.set_password(config.password.expose());
        }
        let address = if config.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address
            .into_connection_info()
            .map_err(ConfigError::Client)?
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = match (config.tls, &config.ca_file) {
            (true, Some(path)) => {
                let root_cert =
                    std::fs::read(path).map_err(|source| ConfigError::CaFile { path: path.display().to_string(), source })?;
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
            }
            _ => Client::open(info),
        };
        Ok(Self { client: client.map_err(ConfigError::Client)?, timeout: config.command_timeout })
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A connection for commands. Its calls have no time-out of their own: the caller has a deadline.
    pub(super) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(self.timeout)).set_response_timeout(None);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// A connection that only listens.
    pub(super) async fn connect_pubsub(&self) -> Result<PubSub, StoreError> {
        match timeout(self.timeout, self.client.get_async_pubsub()).await {
            Ok(connected) => connected.map_err(|error| store_error(&error)),
            Err(_) => Err(no_answer(self.timeout)),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: it knows the password.
        f.debug_struct("Connector")
            .field("address", &self.client.get_connection_info().addr().to_string())
            .finish_non_exhaustive()
    }
}

/// `host:port`, or `[v6]:port`.
fn split_address(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    if host.is_empty() { None } else { Some((host.to_owned(), port.parse().ok()?)) }
}

// === errors ===

/// What the caller can do about it: try again, or call the operator.
pub(super) fn store_error(error: &RedisError) -> StoreError {
    if is_passing(error) { StoreError::Unavailable(error.to_string()) } else { StoreError::Refused(error.to_string()) }
}

pub(super) fn no_answer(timeout: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer within {timeout:?}"))
}

/// A reply of a shape that the command does not have.
pub(super) fn malformed(error: impl fmt::Display) -> StoreError {
    StoreError::Refused(format!("unexpected reply: {error}"))
}

fn is_passing(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    error.is_io_error()
        || error.is_timeout()
        || matches!(error.kind(), ErrorKind::Io | ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain))
}

/// Did the server answer on this connection, so that nothing is left over on it? A replica that was the primary before (`READONLY`) answers
/// too, but another connection may lead to the new primary.
fn is_spent(error: &RedisError) -> bool {
    is_passing(error) || error.is_unrecoverable_error()
}

// === the pool ===

/// A pooled connection and what is known of it.
pub(super) struct Pooled {
    connection: MultiplexedConnection,
    generation: u64,
    /// A command is under way. Only an answer clears it: a connection whose command timed out, broke or was given up by its caller never goes
    /// back to the pool.
    busy: bool,
}

/// What all connections of a pool share.
#[derive(Debug, Default)]
struct Health {
    /// Counts the times that a connection broke. Connections made before that are suspect (the server restarted, or the network between was
    /// cut) and are replaced before use instead of failing one call each.
    generation: AtomicU64,
    /// Why the latest attempt to connect failed; `None` after one that did not.
    refusal: Mutex<Option<StoreError>>,
}

impl Health {
    fn suspect_all(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, outcome: Option<StoreError>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }

    fn refusal(&self) -> Option<StoreError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The connection is older than the last break.
#[derive(Debug)]
pub(super) struct Suspect;

struct Manager {
    connector: Arc<Connector>,
    health: Arc<Health>,
}

impl bb8::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = Suspect;

    async fn connect(&self) -> Result<Pooled, Suspect> {
        let generation = self.health.generation.load(Ordering::Relaxed);
        match self.connector.connect().await {
            Ok(connection) => {
                self.health.note(None);
                Ok(Pooled { connection, generation, busy: false })
            }
            Err(error) => {
                self.health.note(Some(store_error(&error)));
                Err(Suspect)
            }
        }
    }

    /// Asks nobody: a `PING` at every check-out would double the round trips.
    async fn is_valid(&self, pooled: &mut Pooled) -> Result<(), Suspect> {
        if pooled.generation == self.health.generation.load(Ordering::Relaxed) { Ok(()) } else { Err(Suspect) }
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.busy
    }
}

/// Carries commands. Clones of a request's future may be dropped at any time.
pub(super) struct Commands {
    pool: bb8::Pool<Manager>,
    health: Arc<Health>,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// Counts and times a command.
pub(super) fn note(metrics: &Metrics, name: &'static str, started: Instant, ok: bool) {
    metrics.redis_command_seconds.with_label_values(&[name]).observe(started.elapsed().as_secs_f64());
    if !ok {
        metrics.redis_command_errors_total.with_label_values(&[name]).inc();
    }
}

enum Failure {
    /// The connection was found broken: there is time to try another.
    Broken(StoreError),
    Final(StoreError),
}

impl Commands {
    /// Makes an empty pool; connections are made on use.
    pub(super) fn new(connector: Arc<Connector>, size: u32, metrics: Arc<Metrics>) -> Self {
        let (health, timeout) = (Arc::new(Health::default()), connector.timeout());
        let manager = Manager { connector, health: Arc::clone(&health) };
        let pool = bb8::Pool::builder()
            .max_size(size)
            .connection_timeout(timeout)
            .test_on_check_out(true)
            .retry_connection(true)
            .build_unchecked(manager);
        Self { pool, health, timeout, metrics }
    }

    /// Runs a request on a pooled connection; the wait for the connection and for the answer are bounded together.
    ///
    /// A request that meets a connection which broke (the server restarted) runs once more on a fresh one, so it must be idempotent: each
    /// is, because locks compare, sets are sets, and a kill names its victim.
    ///
    /// `name` is one of the values of the label `command`.
    pub(super) async fn run<T, F, Fut>(&self, name: &'static str, request: F) -> Result<T, StoreError>
    where
        F: Fn(MultiplexedConnection) -> Fut + Send + Sync,
        Fut: Future<Output = RedisResult<T>> + Send,
        T: Send,
    {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let outcome = match self.attempt(deadline, &request).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Broken(_)) => self.attempt(deadline, &request).await.map_err(|failure| match failure {
                Failure::Broken(error) | Failure::Final(error) => error,
            }),
        };
        note(&self.metrics, name, started, outcome.is_ok());
        outcome
    }

    async fn attempt<T, F, Fut>(&self, deadline: Instant, request: &F) -> Result<T, Failure>
    where
        F: Fn(MultiplexedConnection) -> Fut + Send + Sync,
        Fut: Future<Output = RedisResult<T>> + Send,
        T: Send,
    {
        let Ok(Ok(mut pooled)) = timeout_at(deadline, self.pool.get()).await else {
            let busy = || StoreError::Unavailable(format!("no connection within {:?}", self.timeout));
            return Err(Failure::Final(self.health.refusal().unwrap_or_else(busy)));
        };
        pooled.busy = true;
        match timeout_at(deadline, request(pooled.connection.clone())).await {
            Ok(Ok(answer)) => {
                pooled.busy = false;
                Ok(answer)
            }
            Ok(Err(error)) if is_spent(&error) => {
                self.health.suspect_all();
                Err(Failure::Broken(store_error(&error)))
            }
            Ok(Err(error)) => {
                pooled.busy = false;
                Err(Failure::Final(store_error(&error)))
            }
            Err(_) => {
                self.health.suspect_all();
                Err(Failure::Final(no_answer(self.timeout)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn section() -> config::Redis {
        config::Redis {
            address: "localhost:6379".into(),
            username: String::new(),
            password: Secret::new("hunter2"),
            db: 0,
            tls: false,
            ca_file: None,
            pool_size: 2,
            command_timeout: Duration::from_millis(500),
            session_lock_retry_delay: Duration::from_millis(200),
        }
    }

    #[test]
    fn addresses_are_host_and_port() {
        assert_eq!(split_address("redis.svc:6379"), Some(("redis.svc".into(), 6379)));
        assert_eq!(split_address("[::1]:6380"), Some(("::1".into(), 6380)));
        for bad in ["", "redis", ":6379", "::1:6379", "redis:port", "redis:70000", "[::1:6379"] {
            assert_eq!(split_address(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_password_is_not_in_debug() {
        let connector = Connector::new(&section()).unwrap();
        assert!(!format!("{connector:?}").contains("hunter2"));
    }

    #[test]
    fn a_section_that_cannot_be_meant_is_refused() {
        let missing = config::Redis { tls: true, ca_file: Some("/does/not/exist.pem".into()), ..section() };
        assert!(matches!(Connector::new(&missing), Err(ConfigError::CaFile { .. })));
        assert!(matches!(Connector::new(&config::Redis { pool_size: 0, ..section() }), Err(ConfigError::Zero("pool_size"))));
        let address = config::Redis { address: "redis".into(), ..section() };
        assert!(matches!(Connector::new(&address), Err(ConfigError::Address(_))));
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let section = config::Redis { tls: true, ca_file: Some(path), ..section() };
        assert!(matches!(Connector::new(&section), Err(ConfigError::Client(_))));
    }
}
