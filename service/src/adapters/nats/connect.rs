//! Connecting: addresses, identity, TLS, and for how long to try. No secret leaves this file, in an error or otherwise.

use std::{borrow::Cow, fs::File, path::PathBuf, time::Duration};

use async_nats::{AuthError, Client, ClientError, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;

use super::{
    bind::Step,
    identity::{Identity, IdentityError, Userinfo},
};
use crate::{
    config::{Nats, SecretFileError},
    runtime::backoff::Backoff,
};

/// Longest wait for a TCP connection with its handshake. A frozen server accepts and says nothing, so this is also how fast the
/// next attempt comes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection on which nothing is heard is pinged this often; the client gives it up after the third ping without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// The waits between attempts to reconnect. With this cap a pod is back within about a second of the server, and a thousand pods
/// are two thousand attempts a second at worst.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// What the server calls the connection of a pod's events, and that of a publisher.
pub(super) const NAME: &str = "daisi-ws-service";

/// Why the event stream could not be started. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum NatsStartError {
    /// An address in `nats.url` is none.
    #[error("nats.url has a bad address")]
    Url(#[source] std::io::Error),
    /// The addresses in `nats.url` hold different users, or the user name or password there is not properly encoded.
    #[error("nats.url: {0}")]
    Userinfo(&'static str),
    /// `nats.credentials_file` can't be read or holds no credentials.
    #[error("nats.credentials_file {path:?}: {source}")]
    Credentials {
        /// The file that can't be used.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The file of a secret can't be read.
    #[error("nats: {0}")]
    Secret(#[from] SecretFileError),
    /// `nats.ca_file` can't be read.
    #[error("nats.ca_file {path:?}: {source}")]
    CaFile {
        /// The file that can't be used.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// No server could be reached, or none accepts us, and `nats.retry_on_failed_connect` is off.
    #[error("no connection to NATS at {servers}")]
    Connect {
        /// Hosts and ports that were tried.
        servers: String,
        /// What the last attempt said.
        source: async_nats::ConnectError,
    },
    /// The durable is a push consumer, from which pods can't pull. It is left alone.
    #[error(
        "the consumer {consumer:?} of the stream {stream:?} is a push consumer, as the predecessor of this service makes them, and \
         pods can't pull from it: set nats.consumer_name to another name, or delete that consumer once nobody uses it"
    )]
    PushConsumer {
        /// `nats.stream_name`.
        stream: String,
        /// `nats.consumer_name`.
        consumer: String,
    },
    /// The NATS user lacks a permission without which no event comes, or none is settled.
    #[error("{0}")]
    Denied(String),
    /// The stream or the consumer is there, and breaks a promise as it is. It is left alone.
    #[error("the stream {stream:?} or its consumer {consumer:?} can't be used as it is: {reason}")]
    Unfit {
        /// `nats.stream_name`.
        stream: String,
        /// `nats.consumer_name`.
        consumer: String,
        /// Why, and what to change.
        reason: String,
    },
    /// JetStream refuses the stream or the consumer for a reason that will not go away by itself.
    #[error("JetStream refuses the stream or the consumer")]
    Refused(#[source] Step),
    /// NATS is there but JetStream did not answer properly, and `nats.retry_on_failed_connect` is off.
    #[error("JetStream is unavailable")]
    Unavailable(#[source] Step),
}

impl From<IdentityError> for NatsStartError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Credentials { path, source } => Self::Credentials { path, source },
            IdentityError::Secret(error) => Self::Secret(error),
        }
    }
}

/// What befalls a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Happening {
    /// It stands.
    Connected,
    /// It stands no more.
    Disconnected,
    /// The server has said what it does not like.
    Error(String),
    /// It could not be made.
    Failed(String),
}

impl Happening {
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::Connected => Some(Self::Connected),
            Event::Disconnected => Some(Self::Disconnected),
            Event::ServerError(error) => Some(Self::Error(error.to_string())),
            Event::ClientError(ClientError::Other(text)) => Some(Self::Failed(text)),
            _ => None,
        }
    }
}

/// Where to connect, and as whom: what has been checked before the first attempt. The files that it names are read again at each.
pub(super) struct Target {
    servers: Vec<ServerAddr>,
    identity: Identity,
    tls: bool,
    ca_file: Option<PathBuf>,
    inbox_prefix: String,
}

impl Target {
    /// Reads the section, and the files that it names.
    pub(super) async fn read(nats: &Nats) -> Result<Self, NatsStartError> {
        let (servers, in_address) = servers(&nats.url)?;
        let identity = Identity::of(nats, in_address);
        // What can't be read now is a mistake, and would look like an outage later.
        let _ = identity.auth(&[]).await?;
        if let Some(path) = &nats.ca_file {
            File::open(path).map_err(|source| NatsStartError::CaFile { path: path.clone(), source })?;
        }
        Ok(Self { servers, identity, tls: nats.tls, ca_file: nats.ca_file.clone(), inbox_prefix: nats.inbox_prefix.clone() })
    }

    fn options(&self, name: &str) -> ConnectOptions {
        let options = match &self.identity {
            Identity::Nobody => ConnectOptions::new(),
            identity => {
                let identity = identity.clone();
                ConnectOptions::with_auth_callback(move |nonce| {
                    let identity = identity.clone();
                    async move { identity.auth(&nonce).await.map_err(AuthError::new) }
                })
            }
        };
        let options = options
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| BACKOFF.nth(u64::try_from(attempts).unwrap_or(u64::MAX)))
            .require_tls(self.tls)
            .custom_inbox_prefix(&self.inbox_prefix);
        match &self.ca_file {
            // The client reads it at each connect.
            Some(path) => options.add_root_certificates(path.clone()),
            None => options,
        }
    }

    /// Connects under a name that the server shows. `on_event` is told of what befalls the connection. With `retry`, returns at
    /// once and connects when it can.
    pub(super) async fn connect(
        &self,
        name: &str,
        retry: bool,
        on_event: impl Fn(Happening) + Send + Sync + 'static,
    ) -> Result<Client, NatsStartError> {
        let on_event = std::sync::Arc::new(on_event);
        let options = self.options(name).event_callback(move |event| {
            let on_event = std::sync::Arc::clone(&on_event);
            async move { Happening::of(event).into_iter().for_each(|happening| on_event(happening)) }
        });
        let options = if retry { options.retry_on_initial_connect() } else { options };
        options.connect(self.servers.clone()).await.map_err(|source| NatsStartError::Connect { servers: self.names(), source })
    }

    /// Hosts and ports, for people.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        names.join(", ")
    }
}

/// Addresses without user and password, which the client would print in its debug log and otherwise ignore.
pub(super) fn servers(url: &str) -> Result<(Vec<ServerAddr>, Option<Userinfo>), NatsStartError> {
    let mut servers = Vec::new();
    let mut identity = None;
    for text in url.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let address: ServerAddr = text.parse().map_err(NatsStartError::Url)?;
        if let Some(user) = address.username() {
            let found = Userinfo { user: decode(user)?, password: address.password().map(decode).transpose()? };
            if identity.as_ref().is_some_and(|known| *known != found) {
                return Err(NatsStartError::Userinfo("all addresses must have the same user and password"));
            }
            identity = Some(found);
        }
        let mut bare = address.into_inner();
        let stripped = bare.set_password(None).and_then(|()| bare.set_username(""));
        let bare = ServerAddr::from_url(bare).map_err(NatsStartError::Url)?;
        if stripped.is_err() || bare.host().is_empty() {
            return Err(no_address("an address without a host"));
        }
        servers.push(bare);
    }
    if servers.is_empty() {
        return Err(no_address("there is none"));
    }
    Ok((servers, identity))
}

fn no_address(why: &'static str) -> NatsStartError {
    NatsStartError::Url(std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
}

/// Undoes percent encoding. The crate leaves a `%` that begins no code as it is; here it is a mistake.
fn decode(text: &str) -> Result<String, NatsStartError> {
    let bad = || NatsStartError::Userinfo("the user or password is not properly percent-encoded");
    let is_code = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_code) {
        return Err(bad());
    }
    percent_decode_str(text).decode_utf8().map(Cow::into_owned).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_and_rid_of_user_and_password() {
        let (servers, identity) = servers("nats://sari:p%40ss@one:4222, nats://sari:p%40ss@two").unwrap();
        let names: Vec<_> = servers.iter().map(ServerAddr::as_url_str).collect();
        assert_eq!(names, ["nats://one:4222", "nats://two"]);
        let identity = identity.unwrap();
        assert_eq!((identity.user.as_str(), identity.password.as_deref()), ("sari", Some("p@ss")));
    }

    #[test]
    fn percent_codes_are_decoded_and_half_ones_and_what_is_no_text_refused() {
        assert_eq!(decode("p%40s%c3%B6s%25").unwrap(), "p@s\u{f6}s%");
        for bad in ["%", "a%4", "%zz", "%+1", "%%41", "%ff"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_about_addresses_hold_no_secret() {
        for url in [
            "nats://sari:hunter2@host:port",
            "http://sari:hunter2@host",
            "nats://sari:hunter2%zz@host",
            "",
            "nats://a:hunter2@b,nats://c:d@e",
        ] {
            let error = servers(url).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
