//! A real Redis of a test's own.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use daisi_ws_service::{
    adapters::redis::RedisStore,
    application::fleet::key::FleetKey,
    config::{self, Secret},
    metrics::Metrics,
    runtime::lifecycle::{Shutdown, Tasks},
};
use tempfile::TempDir;

use super::wait;

const USER: &str = "daisi-ws";
const USER_PASSWORD: &str = "of-the-user";

/// How a server is protected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) password: Option<&'static str>,
    /// Pods log in as the user that docs/operations.md defines, and can do no more than it may.
    pub(crate) restricted: bool,
    /// Speak TLS only, with a certificate that [`RedisServer::config`] trusts.
    pub(crate) tls: bool,
}

/// A `redis-server` without persistence on a free port; it dies with this value.
pub(crate) struct RedisServer {
    folder: TempDir,
    port: u16,
    options: Options,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts a protected one.
    pub(crate) async fn start_with(options: Options) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut server = Self { folder: TempDir::new().unwrap(), port, options, process: None };
        if server.options.tls {
            server.make_certificates();
        }
        server.start_again_empty().await;
        if server.options.restricted {
            server.allow(&documented_rules()).await;
            server.save_users().await;
        }
        server
    }

    /// Changes what the user of a restricted server may do.
    pub(crate) async fn allow(&self, rules: &[String]) {
        redis::cmd("ACL").arg("SETUSER").arg(USER).arg(rules).exec_async(&mut self.client().await).await.unwrap();
    }

    /// The section `redis` that reaches it.
    pub(crate) fn config(&self) -> config::Redis {
        let (username, password) =
            if self.options.restricted { (USER, USER_PASSWORD) } else { ("", self.options.password.unwrap_or_default()) };
        config::Redis {
            address: format!("localhost:{}", self.port),
            username: username.into(),
            password: Secret::new(password),
            db: 0,
            tls: self.options.tls,
            ca_file: self.options.tls.then(|| self.folder.path().join("cert.pem")),
            pool_size: 4,
            command_timeout: Duration::from_millis(500),
            session_lock_retry_delay: Duration::from_millis(200),
        }
    }

    /// A pod's store on it.
    pub(crate) fn store(&self) -> RedisStore {
        let key = FleetKey::derive(&Secret::new("ab".repeat(32)), &Secret::new("cd".repeat(32)));
        RedisStore::new(&self.config(), tasks()).unwrap().with_fleet_key(key, false)
    }

    /// A plain connection for looking at it and for playing an old pod.
    pub(crate) async fn client(&self) -> redis::aio::MultiplexedConnection {
        let url = format!("redis://:{}@127.0.0.1:{}", self.options.password.unwrap_or_default(), self.port);
        redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// Kills it; its data is gone.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// What the next start asks for.
    pub(crate) fn set_password(&mut self, password: &'static str) {
        self.options.password = Some(password);
    }

    /// Starts it on the same port, without data, and waits until it answers.
    pub(crate) async fn start_again_empty(&mut self) {
        self.stop();
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        self.start_again().await;
    }

    /// Kills it and starts it on the same port with what it [saved](Self::save) last, and waits until it answers.
    pub(crate) async fn start_again(&mut self) {
        self.stop();
        self.process = Some(self.command().spawn().unwrap_or_else(|error| {
            panic!(
                "can't run redis-server ({error}): run the tests with .ci/test, which brings it, or set REDIS_SERVER to its path"
            )
        }));
        let port = self.port;
        wait::until("redis-server listens", || async move { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() })
            .await;
    }

    /// Writes a snapshot of its data.
    pub(crate) async fn save(&self) {
        redis::cmd("SAVE").exec_async(&mut self.client().await).await.unwrap();
    }

    /// Writes its users down, for the next start.
    pub(crate) async fn save_users(&self) {
        redis::cmd("ACL").arg("SAVE").exec_async(&mut self.client().await).await.unwrap();
    }

    /// Makes it a replica of another, or a primary again.
    pub(crate) async fn follow(&self, other: Option<&Self>) {
        let (host, port) =
            other.map_or(("NO".to_owned(), "ONE".to_owned()), |other| ("127.0.0.1".to_owned(), other.port.to_string()));
        redis::cmd("REPLICAOF").arg(host).arg(port).exec_async(&mut self.client().await).await.unwrap();
    }

    /// Stops it from running without closing anything: connections stay, answers do not come.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it run on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        let port = self.port.to_string();
        command.current_dir(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir", "."]);
        std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("users.acl")).unwrap();
        if self.options.password.is_none() {
            command.args(["--aclfile", "users.acl"]);
        }
        if self.options.tls {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem"]);
        } else {
            command.args(["--port", &port]);
        }
        if let Some(password) = self.options.password {
            command.args(["--requirepass", password]);
        }
        command
    }

    /// Makes a certificate that is its own CA, in place of the one before.
    pub(crate) fn make_certificates(&self) {
        let status = Command::new("openssl")
            .current_dir(self.folder.path())
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .stderr(Stdio::null())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "can't make a certificate: run the tests with .ci/test, which brings openssl"
        );
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What `REDIS_SERVER` names, else what `.ci/tools.sh` has fetched, else the one on PATH.
pub(crate) fn program() -> PathBuf {
    let fetched = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/redis-server");
    let found = std::env::var_os("REDIS_SERVER").map(PathBuf::from);
    found.or_else(|| Some(fetched()).filter(|program| program.exists())).unwrap_or_else(|| "redis-server".into())
}

/// The rules of the user in docs/operations.md.
pub(crate) fn documented_rules() -> Vec<String> {
    let docs = include_str!("../../../../docs/operations.md");
    let (_, rest) = docs.split_once(&format!("ACL SETUSER {USER} ")).expect("the user is in the docs");
    let (rules, _) = rest.split_once("```").expect("in a block of its own");
    rules.replace("PASSWORD", USER_PASSWORD).split_whitespace().map(str::to_owned).collect()
}

/// The tasks of one pod.
pub(crate) fn tasks() -> Tasks {
    Tasks::new(Shutdown::default(), std::sync::Arc::new(Metrics::new().unwrap()), tracing::Span::none())
}
