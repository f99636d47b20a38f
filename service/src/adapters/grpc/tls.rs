//! TLS between pods, both ways: each side shows a certificate of the fleet's authority, or there is no connection.
//!
//! Certificates are read again when their files change; connections that are open stay as they are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore, ServerConfig,
        crypto::CryptoProvider,
        pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
};

use crate::telemetry::Chain;

/// How often the files are looked at. A certificate is renewed days before it runs out.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What both sides agree on within TLS.
const PROTOCOL: &[u8] = b"h2";

/// Where a pod's certificate is, and what it is proved by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// This pod's chain, PEM (`server.grpc_tls_certificate_file`).
    pub certificate: PathBuf,
    /// Its key, PEM (`server.grpc_tls_key_file`).
    pub key: PathBuf,
    /// The authorities of the fleet, PEM (`server.grpc_tls_ca_file`).
    pub ca: PathBuf,
    /// The name in every pod's certificate; `None`: the host of its address (`server.grpc_tls_server_name`).
    pub server_name: Option<String>,
}

/// Why TLS can't be had as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or holds nothing of its kind.
    #[error("{}: {source}", file.display())]
    File {
        /// The file that can't be used.
        file: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The certificate and its key, or an authority, can't be used.
    #[error("the certificate can't be used: {0}")]
    Certificate(#[from] rustls::Error),
    /// The authorities can't prove anybody.
    #[error("the authorities can't be used: {0}")]
    Authorities(#[from] VerifierBuilderError),
    /// `server.grpc_tls_server_name` is no name.
    #[error("server.grpc_tls_server_name: {0}")]
    Name(#[from] InvalidDnsNameError),
}

#[derive(Debug, Clone)]
struct Current {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// TLS as it is now. Clones share it.
#[derive(Debug, Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    name: Option<ServerName<'static>>,
    current: Arc<watch::Sender<Current>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one can't be read or used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let name = files.server_name.clone().map(ServerName::try_from).transpose()?;
        let current = Arc::new(watch::Sender::new(read(&files)?));
        Ok(Self { files: Arc::new(files), name, current })
    }

    /// Reads the files again whenever they change, for as long as it is polled. Files that can't be used change nothing.
    pub async fn watch(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = self.stamps();
        loop {
            looks.tick().await;
            let now = self.stamps();
            if now != before {
                before = now;
                self.reload();
            }
        }
    }

    /// Reads the certificate files again; connections that stand keep the old ones.
    pub fn reload(&self) {
        match read(&self.files) {
            Ok(current) => {
                self.current.send_replace(current);
                tracing::info!("the certificate for pods was read again");
            }
            // A file at a time is replaced; the next look sees the others.
            Err(error) => {
                tracing::warn!(
                    error = %Chain(&error),
                    "the certificate for pods has changed and can't be used; the one before stays"
                );
            }
        }
    }

    fn stamps(&self) -> [Option<(SystemTime, u64)>; 3] {
        let stamp = |file: &Path| {
            let metadata = std::fs::metadata(file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        [&self.files.certificate, &self.files.key, &self.files.ca].map(|file| stamp(file))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.borrow().server).into()
    }

    pub(super) fn connector(&self) -> TlsConnector {
        Arc::clone(&self.current.borrow().client).into()
    }

    /// The name that must stand in the certificate of anyone who is at `host:port`.
    pub(super) fn name_at(&self, address: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
    }
}

fn read(files: &TlsFiles) -> Result<Current, TlsError> {
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.certificate)?;
    let key = || PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File { file: files.key.clone(), source });
    let mut authorities = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        authorities.add(authority)?;
    }
    let authorities = Arc::new(authorities);
    let proved = WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities), Arc::clone(&provider)).build()?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(proved)
        .with_single_cert(chain.clone(), key()?)?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities)
        .with_client_auth_cert(chain, key()?)?;
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Current { server: Arc::new(server), client: Arc::new(client) })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { file: file.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(file).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(found) }
}
