//! A nats-server with JetStream for one test, on a free port and with a temporary store.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use daisi_ws_domain::publication::Publication;
use daisi_ws_service::{
    adapters::nats::{ConsumerDefaults, Publisher},
    config::{Nats, Secret},
    metrics::Metrics,
    runtime::lifecycle::{Shutdown, Tasks},
};
use tempfile::TempDir;
use tokio::time::Instant;

/// Longest wait until a server answers: it takes a tenth of a second, but on a busy machine who knows.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Who may come in.
#[derive(Debug, Clone, Default)]
pub(crate) enum Access {
    /// Everybody.
    #[default]
    Open,
    /// One user with a password.
    User(&'static str, &'static str),
    /// Who knows the token.
    Token(&'static str),
    /// The user `pod`, who may not publish to these subjects.
    Denied(&'static str),
    /// The user `pod`, who may not hear answers.
    Deaf,
    /// Everybody, over TLS, with a certificate of a CA of the test's own.
    Tls,
    /// The users that are shipped, with what each may do; pods are `gateway`.
    Shipped,
}

/// A running server; ends with its value.
pub(crate) struct NatsServer {
    program: PathBuf,
    folder: TempDir,
    access: Access,
    port: u16,
    child: Child,
}

impl NatsServer {
    /// Starts an open server and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(Access::Open).await
    }

    /// Starts a server and waits until it answers.
    pub(crate) async fn start_with(access: Access) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let program = program();
        if matches!(access, Access::Tls) {
            make_certificates(folder.path());
        }
        let child = spawn(&program, folder.path(), &access, None);
        let port = announced_port(folder.path(), child.id()).await;
        let server = Self { program, folder, access, port, child };
        server.answers().await;
        server
    }

    /// Its address, without user and password.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The section `nats` of a pod that uses it, with the default names.
    pub(crate) fn section(&self) -> Nats {
        let mut nats = section(&self.url());
        match self.access {
            Access::Open => {}
            Access::User(user, password) => {
                nats.user = user.to_owned();
                nats.password = Secret::new(password);
            }
            Access::Denied(_) | Access::Deaf => {
                nats.user = "pod".to_owned();
                nats.password = Secret::new("pod");
            }
            Access::Token(token) => nats.token = Secret::new(token),
            Access::Shipped => {
                nats.user = "gateway".to_owned();
                nats.password = Secret::new("gateway-password");
                nats.inbox_prefix = "_INBOX_gateway".to_owned();
            }
            Access::Tls => {
                nats.tls = true;
                nats.ca_file = Some(self.folder.path().join("ca.pem"));
            }
        }
        nats
    }

    /// The same for who publishes, where users are those that are shipped.
    pub(crate) fn section_of_publisher(&self) -> Nats {
        Nats { user: "publisher".to_owned(), password: Secret::new("publisher-password"), ..section(&self.url()) }
    }

    /// Events of the shared consumer that are unsettled, and that nobody took yet.
    pub(crate) async fn consumer_state(&self) -> (usize, u64) {
        let client = async_nats::connect(self.url()).await.expect("the server answers");
        let section = self.section();
        let js = async_nats::jetstream::new(client);
        let consumer: async_nats::jetstream::consumer::PullConsumer =
            js.get_consumer_from_stream(&section.consumer_name, &section.stream_name).await.expect("the consumer is there");
        let info = consumer.cached_info();
        (info.num_ack_pending, info.num_pending)
    }

    /// Ends it at once, as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the server is ours");
        self.child.wait().expect("the server is ours");
    }

    /// Ends it in good order, as a rolling restart does.
    pub(crate) fn stop(&mut self) {
        self.signal("-TERM");
        self.child.wait().expect("the server is ours");
    }

    /// Starts it again on the same port and store, after [`NatsServer::stop`] or [`NatsServer::kill`].
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.program, self.folder.path(), &self.access, Some(self.port));
        self.answers().await;
    }

    /// The same, with others let in.
    pub(crate) async fn restart_with(&mut self, access: Access) {
        self.access = access;
        self.restart().await;
    }

    /// Has it read another rule of who may come in, without an end.
    pub(crate) fn reload_with(&mut self, access: Access) {
        self.access = access;
        configure(self.folder.path(), &self.access, Some(self.port));
        self.signal("-HUP");
    }

    /// Stops its process without ending it: connections stay, nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill is there");
        assert!(sent.success(), "kill {signal} failed");
    }

    /// Waits until it greets a connection.
    async fn answers(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while !greets(self.port) {
            assert!(Instant::now() < deadline, "nats-server does not answer; its log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The section `nats` with the default names.
pub(crate) fn section(url: &str) -> Nats {
    Nats {
        url: url.to_owned(),
        stream_name: "wa_stream".to_owned(),
        consumer_name: "ws_fanout".to_owned(),
        subject_prefix: "wa".to_owned(),
        inbox_prefix: "_INBOX".to_owned(),
        retry_on_failed_connect: false,
        user: String::new(),
        password: Secret::default(),
        token: Secret::default(),
        credentials_file: None,
        tls: false,
        ca_file: None,
        stream_max_age: Duration::from_secs(3600),
        stream_max_bytes: 64 * 1024 * 1024,
        stream_replicas: 1,
    }
}

/// An event that may be published, under the default prefix.
pub(crate) fn publication(subject: &str, payload: impl Into<Bytes>) -> Publication {
    Publication::parse("wa", subject, &payload.into()).expect("it is an event")
}

/// Stores anything on any subject, as publishers do that are none of ours.
pub(crate) async fn store_anything(
    publisher: &Publisher,
    subject: &str,
    payload: impl Into<Bytes>,
    headers: &[(&str, &str)],
) -> Result<u64, async_nats::Error> {
    let mut map = async_nats::HeaderMap::new();
    headers.iter().for_each(|(name, value)| map.insert(*name, *value));
    let js = async_nats::jetstream::new(publisher.client().clone());
    Ok(js.publish_with_headers(subject.to_owned(), map, payload.into()).await?.await?.sequence)
}

/// What consumers get in tests: an ack wait that a test can wait for.
pub(crate) const DEFAULTS: ConsumerDefaults = ConsumerDefaults { ack_wait: Duration::from_secs(1), max_ack_pending: 5000 };

/// Tasks of a pod that nobody shuts down.
pub(crate) fn tasks() -> Tasks {
    Tasks::new(Shutdown::default(), Arc::new(Metrics::new().expect("metrics register")), tracing::Span::none())
}

fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("NATS_SERVER") {
        return program.into();
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/nats-server");
    if fetched.exists() { fetched } else { "nats-server".into() }
}

fn spawn(program: &Path, folder: &Path, access: &Access, port: Option<u16>) -> Child {
    configure(folder, access, port);
    Command::new(program)
        .arg("-c")
        .arg(folder.join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("{} does not start ({e}): run .ci/test, which gets the servers that tests need", program.display())
        })
}

fn configure(folder: &Path, access: &Access, port: Option<u16>) {
    let path = |name: &str| folder.join(name).display().to_string();
    let access = match access {
        Access::Open => String::new(),
        Access::User(user, password) => format!("authorization {{ user: {user:?}, password: {password:?} }}\n"),
        Access::Denied(subjects) => format!(
            "authorization {{ users: [ {{ user: pod, password: pod, permissions: {{ publish: {{ deny: [{subjects:?}] }} }} }} ] }}\n"
        ),
        Access::Deaf => {
            "authorization { users: [ { user: pod, password: pod, permissions: { subscribe: { deny: [\"_INBOX.>\"] } } } ] }\n"
                .to_owned()
        }
        Access::Shipped => {
            format!("GATEWAY_PASSWORD: gateway-password\nPUBLISHER_PASSWORD: publisher-password\n{}", shipped_users())
        }
        Access::Token(token) => format!("authorization {{ token: {token:?} }}\n"),
        Access::Tls => format!("tls {{ cert_file: {:?}, key_file: {:?} }}\n", path("server.pem"), path("server.key")),
    };
    let port = port.map_or("-1".to_owned(), |port| port.to_string());
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\nports_file_dir: {:?}\nlog_file: {:?}\njetstream {{ store_dir: {:?}, max_file_store: 1G }}\n{access}",
        path(""),
        path("log"),
        path("store"),
    );
    fs::write(folder.join("nats.conf"), config).expect("the folder is ours");
}

/// Who may do what in the servers of compose and of Kubernetes: one and the same.
pub(crate) fn shipped_users() -> String {
    let users = |configuration: &str| {
        let (_, rest) = configuration.split_once("\nauthorization {").expect("it has users");
        let (users, _) = rest.split_once("\n}\n").expect("the block has an end");
        format!("authorization {{{users}\n}}\n")
    };
    let compose = users(include_str!("../../../../compose/nats.secure.conf"));
    assert_eq!(compose, users(include_str!("../../../../k8s/components/nats-cluster/nats.conf")));
    compose
}

/// The port that the server has picked, as it writes it to a file.
async fn announced_port(folder: &Path, pid: u32) -> u16 {
    let file = folder.join(format!("nats-server_{pid}.ports"));
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let text = fs::read_to_string(&file).or_else(|_| fs::read_to_string(any_ports_file(folder)));
        let ports = text.ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        if let Some(url) = ports.as_ref().and_then(|ports| ports["nats"][0].as_str()) {
            return url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address ends in a port");
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "nats-server does not say its port; its log:\n{log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The file is named after the program, which may have another name.
fn any_ports_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|e| e == "ports")).unwrap_or_default()
}

/// Does the server send its INFO line?
fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(Duration::from_millis(500))).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"INFO"
}

/// A CA, and a certificate of it for 127.0.0.1.
fn make_certificates(folder: &Path) {
    let run = |args: &[&str]| {
        let made =
            Command::new("openssl").args(args).current_dir(folder).output().expect("tests of TLS need the program openssl");
        assert!(made.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&made.stderr));
    };
    let mut names = fs::File::create(folder.join("names")).expect("the folder is ours");
    names.write_all(b"subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("the folder is ours");
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    run(&[&["req", "-x509", "-days", "2", "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem"][..], &key].concat());
    run(&[&["req", "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr"][..], &key].concat());
    run(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "server.pem",
    ]);
}
