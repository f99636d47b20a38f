//! How a connection to Redis is made. What it takes to log in is read from its files each time: they are renewed while a pod
//! runs.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisResult, TlsCertificates,
    aio::{MultiplexedConnection, PubSub},
    io::tcp::TcpSettings,
};
use tokio::time::timeout;

use super::{errors::store_error, lineage::Lineage};
use crate::{
    config::{self, Secret},
    ports::StoreError,
};

/// The longest CA bundle that is read, in bytes: many times what a platform trusts.
const MAX_CA_BYTES: u64 = 4 << 20;

/// The section `redis` can't be meant like this.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `redis.address` is not `host:port`.
    #[error("redis.address: {0:?} is not host:port")]
    Address(String),
    /// The file can't be read.
    #[error("redis.ca_file: can't read {path}")]
    CaFile {
        /// The file that `redis.ca_file` names.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The client does not take it, certificates included.
    #[error("redis: the client refuses these settings")]
    Client(#[source] RedisError),
    /// A pool without connections, or an answer in no time.
    #[error("redis.{0} must be more than 0")]
    Zero(&'static str),
}

/// What a client is made of that may be renewed.
#[derive(Clone, PartialEq)]
struct Credentials {
    password: Secret,
    ca: Option<Vec<u8>>,
}

/// Knows how to connect. Every connection it makes, and every answer on it, is bounded by the same time-out.
pub(super) struct Dialer {
    section: config::Redis,
    lineage: Arc<Lineage>,
    /// Made with the credentials that stood in their files at the last connect.
    latest: Mutex<(Credentials, Client)>,
}

impl Dialer {
    pub(super) fn new(section: &config::Redis, lineage: Arc<Lineage>) -> Result<Self, ConfigError> {
        if section.pool_size == 0 {
            return Err(ConfigError::Zero("pool_size"));
        }
        if section.command_timeout.is_zero() {
            return Err(ConfigError::Zero("command_timeout_ms"));
        }
        let ca = match &section.ca_file {
            Some(path) if section.tls => {
                let source = |source| ConfigError::CaFile { path: path.display().to_string(), source };
                Some(read_ca(path).map_err(source)?)
            }
            _ => None,
        };
        let credentials = Credentials { password: section.password.clone(), ca };
        let client = make(section, &credentials)?;
        Ok(Self { section: section.clone(), lineage, latest: Mutex::new((credentials, client)) })
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.section.command_timeout
    }

    /// A connection for commands. Its calls have no time-out of their own: the caller has a deadline.
    pub(super) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(self.timeout())).set_response_timeout(None);
        let connection = self.client().await?.get_multiplexed_async_connection_with_config(&config).await?;
        self.lineage.connected();
        Ok(connection)
    }

    /// A connection that only listens.
    pub(super) async fn connect_pubsub(&self) -> Result<PubSub, StoreError> {
        let connecting = async { self.client().await?.get_async_pubsub().await };
        match timeout(self.timeout(), connecting).await {
            Ok(connected) => connected.map_err(store_error),
            Err(_) => Err(StoreError::TimedOut(self.timeout())),
        }
    }

    /// A client with the credentials as they are now. An error names the file that could not be read, and shows nothing of it.
    async fn client(&self) -> RedisResult<Client> {
        let password = self.section.password.now().await.map_err(|error| unreadable("redis.password", error))?;
        let ca = match &self.section.ca_file {
            Some(path) if self.section.tls => {
                let file = path.clone();
                let read = tokio::task::spawn_blocking(move || read_ca(&file))
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)));
                Some(read.map_err(|source| {
                    let path = path.display().to_string();
                    unreadable("redis.ca_file", ConfigError::CaFile { path, source })
                })?)
            }
            _ => None,
        };
        let credentials = Credentials { password, ca };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.0 != credentials {
            let client = make(&self.section, &credentials).map_err(|error| match error {
                ConfigError::Client(error) => error,
                other => io::Error::other(other).into(),
            })?;
            tracing::info!("the credentials for Redis were renewed; connections that are made from now on have the new ones");
            *latest = (credentials, client);
        }
        Ok(latest.1.clone())
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: it knows the password.
        f.debug_struct("Dialer").field("address", &self.section.address).finish_non_exhaustive()
    }
}

fn make(section: &config::Redis, credentials: &Credentials) -> Result<Client, ConfigError> {
    let (host, port) = split_address(&section.address).ok_or_else(|| ConfigError::Address(section.address.clone()))?;
    // RESP2: nothing here needs RESP3, and older servers and proxies do not speak it.
    let mut settings =
        RedisConnectionInfo::default().set_db(i64::from(section.db)).set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
    if !section.username.is_empty() {
        settings = settings.set_username(&section.username);
    }
    if !credentials.password.is_empty() {
        settings = settings.set_password(credentials.password.expose());
    }
    let address = if section.tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    let info = address
        .into_connection_info()
        .map_err(ConfigError::Client)?
        .set_redis_settings(settings)
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = match &credentials.ca {
        Some(ca) => Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) }),
        None => Client::open(info),
    };
    client.map_err(ConfigError::Client)
}

fn read_ca(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;

    let mut bundle = Vec::new();
    std::fs::File::open(path)?.take(MAX_CA_BYTES + 1).read_to_end(&mut bundle)?;
    if bundle.len() as u64 > MAX_CA_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {MAX_CA_BYTES} bytes")));
    }
    Ok(bundle)
}

/// What it takes to log in can't be read now.
#[derive(Debug, thiserror::Error)]
#[error("{key} can't be had")]
struct Unreadable {
    key: &'static str,
    #[source]
    why: Box<dyn std::error::Error + Send + Sync>,
}

/// As an outage: it may be over at the next try.
fn unreadable(key: &'static str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RedisError {
    io::Error::other(Unreadable { key, why: why.into() }).into()
}

/// `host:port`, or `[v6]:port`.
pub(super) fn split_address(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    if host.is_empty() { None } else { Some((host.to_owned(), port.parse().ok()?)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn dialer(section: &config::Redis) -> Result<Dialer, ConfigError> {
        Dialer::new(section, Arc::new(Lineage::new(Arc::new(Metrics::new().unwrap()))))
    }

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
        let dialer = dialer(&section()).unwrap();
        assert!(!format!("{dialer:?}").contains("hunter2"));
    }

    #[test]
    fn a_section_that_cannot_be_meant_is_refused() {
        let missing = config::Redis { tls: true, ca_file: Some("/does/not/exist.pem".into()), ..section() };
        assert!(matches!(dialer(&missing), Err(ConfigError::CaFile { .. })));
        assert!(matches!(dialer(&config::Redis { pool_size: 0, ..section() }), Err(ConfigError::Zero("pool_size"))));
        let address = config::Redis { address: "redis".into(), ..section() };
        assert!(matches!(dialer(&address), Err(ConfigError::Address(_))));
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let section = config::Redis { tls: true, ca_file: Some(path), ..section() };
        assert!(matches!(dialer(&section), Err(ConfigError::Client(_))));
    }
}
