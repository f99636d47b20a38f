//! The compose environments come up, and a browser that knows one URL gets its events.

use std::{path::Path, process::Stdio, time::Duration};

use daisi_ws_fleet::{containers::docker::LABEL, identity::Who, traffic::client};
use daisi_ws_testbed::{http, wait};
use futures_util::StreamExt as _;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

/// Sessions that move behind the one URL.
const LISTENERS: usize = 6;

/// An environment, taken down again when it is dropped, with its volumes.
struct Environment {
    project: String,
    files: Vec<&'static str>,
    port: u16,
    prometheus: u16,
    alertmanager: u16,
}

impl Environment {
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new("docker");
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose")).args(["compose", "-p", &self.project]);
        for file in &self.files {
            command.args(["-f", file]);
        }
        command
            .args(arguments)
            .env("HTTP_PORT", self.port.to_string())
            .env("PROMETHEUS_PORT", self.prometheus.to_string())
            .env("ALERTMANAGER_PORT", self.alertmanager.to_string())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn up(files: &[&'static str]) -> Self {
        let made =
            std::process::Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/secrets.sh")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Containers read the files, which are mounted one by one; other users of this machine have no way to them.
        let folder = std::fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/secrets")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&folder.permissions()) & 0o077, 0, "others can look for secrets");
        let held = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [port, prometheus, alertmanager] = held.map(|held| held.local_addr().unwrap().port());
        // No label of the harness: compose has its own.
        let project = format!("{}-{}-{port}", LABEL.split('.').next().unwrap(), std::process::id());
        let environment = Self { project, files: files.to_vec(), port, prometheus, alertmanager };
        environment.run(&["up", "-d", "--wait"]);
        environment
    }

    fn secret(name: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/secrets").join(name)).unwrap()
    }

    /// Publishes as somebody who may: where users have rights, the pods' user has not this one.
    fn publish(&self, event: &str) {
        let secure = self.files.contains(&"compose.secure.yaml");
        if secure {
            self.run(&["run", "--rm", "-T", "publisher", "publish", "wa.acme.a1.chats", event]);
        } else {
            self.publish_from("pod-b", event);
        }
    }

    fn publish_from(&self, pod: &str, event: &str) {
        self.run(&["exec", "-T", pod, "/bin/daisi-ws-service", "publish", "wa.acme.a1.chats", event]);
    }

    fn token(&self, user: &str) -> String {
        let program = ["exec", "-T", "pod-b", "/bin/daisi-ws-service"];
        self.run(&[&program[..], &["token", "user", "--company", "acme", "--agent", "a1", "--user", user]].concat())
    }

    /// A session through the one URL gets what is published.
    async fn serves(&self) {
        let url = ([127, 0, 0, 1], self.port).into();
        let token = self.token("sari");
        let who = Who::User { company: "acme".into(), agent: "a1".into(), user: "sari".into(), chat: None };
        let mut socket = client::open_path(url, &client::path(&who), token.trim(), &Self::secret("api_key")).await.unwrap();
        let ready = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
        assert!(ready.to_text().unwrap().contains("\"ready\""), "{ready:?}");
        for n in 0..20 {
            self.publish(&format!("{{\"n\":{n}}}"));
            let event = loop {
                let message = timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
                // Publishing by a command in a container takes its time, so a ping may be due.
                if message.is_text() {
                    break message;
                }
            };
            assert!(event.to_text().unwrap().contains(&format!("\"n\":{n}")), "{event:?}");
        }
        assert_eq!(http::get(url, "/metrics").await.unwrap().status, 404, "browsers see the figures");
        let headers = [("x-api-key", &*Self::secret("mint_key")), ("content-type", "application/json")];
        for path in ["/generate-token", "/admin/generate-token", "//generate-token"] {
            let answer = http::ask(url, "POST", path, &headers, "{}").await.unwrap();
            assert_eq!(answer.status, 404, "browsers reach {path}");
        }
    }
}

/// A `listen` through the one URL, by the image's program on this machine.
struct Listener {
    process: std::process::Child,
    folder: tempfile::TempDir,
}

impl Listener {
    fn start(environment: &Environment, user: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join("token"), environment.token(user)).unwrap();
        let program = std::env::var_os("DAISI_WS_BINARY").unwrap();
        let process = std::process::Command::new(program)
            .args(["listen", "--url", &format!("ws://127.0.0.1:{}/ws/acme/a1", environment.port), "--token-file"])
            .arg(folder.path().join("token"))
            .env("DAISI_WS_AUTH_SECRET_TOKEN", Environment::secret("api_key"))
            .stdin(Stdio::null())
            .stdout(file("frames"))
            .stderr(file("said"))
            .spawn()
            .unwrap();
        Self { process, folder }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// The numbers of the events that it has printed.
    fn got(&self) -> Vec<u64> {
        let frames = self.read("frames");
        let frames = frames.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        frames.filter_map(|frame| frame["payload"]["n"].as_u64()).collect()
    }

    /// How often it has said this.
    fn said(&self, what: &str) -> usize {
        self.read("said").matches(what).count()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn restarted_in_turn_pods_have_sessions_behind_the_one_url_move_and_none_is_refused() {
    let environment = Environment::up(&["compose.yaml"]);
    let listeners: Vec<_> = (0..LISTENERS).map(|user| Listener::start(&environment, &format!("user-{user}"))).collect();
    for listener in &listeners {
        wait::until("it is ready", SOON, || std::future::ready(listener.said("ready on") == 1)).await.unwrap();
    }
    let mut published = 0..;
    for (pod, other) in [("pod-a", "pod-b"), ("pod-b", "pod-c"), ("pod-c", "pod-a")] {
        environment.publish_from(other, &format!("{{\"n\":{}}}", published.next().unwrap()));
        let mut restart = environment.command(&["restart", pod]).stderr(Stdio::null()).spawn().unwrap();
        while restart.try_wait().unwrap().is_none() {
            environment.publish_from(other, &format!("{{\"n\":{}}}", published.next().unwrap()));
        }
        environment.run(&["up", "-d", "--wait", "--no-deps", pod]);
    }
    let published: Vec<u64> = (0..published.start).collect();
    for listener in &listeners {
        let got = || {
            let mut got = listener.got();
            got.sort_unstable();
            got
        };
        wait::until("it has all", SOON, || std::future::ready(got().len() >= published.len())).await.unwrap();
        let said = listener.read("said");
        assert_eq!(got(), published, "{said}");
        assert!(listener.said("closed with 1001 moved") >= 1 && listener.said("again in") == 0, "{said}");
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let folder = daisi_ws_fleet::artifacts::folder("logs");
            let _ = std::fs::create_dir_all(&folder);
            if let Ok(log) = self.command(&["logs", "--no-color", "--timestamps"]).output() {
                let _ = std::fs::write(folder.join(format!("{}.log", self.project)), log.stdout);
            }
            eprintln!("the logs of all containers are in {}", folder.display());
        }
        let _ = self.command(&["down", "--volumes", "--timeout", "10"]).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn the_plain_environment_serves_through_one_url_and_survives_a_dead_pod() {
    let environment = Environment::up(&["compose.yaml"]);
    environment.serves().await;
    environment.run(&["kill", "pod-a"]);
    wait::until("the load balancer sees it", SOON, || async {
        http::get(([127, 0, 0, 1], environment.port).into(), "/ready").await.is_ok_and(|answer| answer.status == 200)
    })
    .await
    .unwrap();
    environment.serves().await;
    environment.run(&["up", "-d", "--wait"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn the_secure_environment_serves_and_refuses_whoever_has_no_password() {
    let environment = Environment::up(&["compose.yaml", "compose.secure.yaml"]);
    environment.serves().await;
    let tls =
        ["exec", "-T", "redis", "redis-cli", "--tls", "--cacert", "/etc/redis/ca.crt", "-h", "localhost", "get", "routes:epoch"];
    assert!(environment.run(&tls).contains("NOAUTH"));
    let plain = environment.command(&["exec", "-T", "redis", "redis-cli", "ping"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&plain.stdout).contains("PONG"), "Redis answers without TLS");
    let stranger = ["exec", "-T", "-e", "DAISI_WS_NATS_USER=stranger", "pod-b"];
    let publish = ["/bin/daisi-ws-service", "publish", "wa.acme.a1.chats", "{}"];
    let refused = environment.command(&[&stranger[..], &publish[..]].concat()).output().unwrap();
    let own = environment.command(&[&["exec", "-T", "pod-b"][..], &publish[..]].concat()).output().unwrap();
    assert!(!own.status.success(), "the pods' user may publish");
    let words = String::from_utf8_lossy(&refused.stderr).to_lowercase();
    assert!(!refused.status.success() && words.contains("authori"), "NATS takes events from strangers: {words}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn the_observed_environment_is_scraped_and_knows_its_alertmanager() {
    let environment = Environment::up(&["compose.yaml", "compose.observability.yaml"]);
    let ask = async |port: u16, path: &str| http::get(([127, 0, 0, 1], port).into(), path).await.map(|answer| answer.body);
    wait::until("all three pods are scraped", SOON, || async {
        let up = ask(environment.prometheus, "/api/v1/query?query=sum(up%7Bjob%3D%22daisi-ws-service%22%7D)").await;
        up.is_ok_and(|up| up.contains("\"3\"]"))
    })
    .await
    .unwrap();
    wait::until("alerts have somewhere to go", SOON, || async {
        ask(environment.prometheus, "/api/v1/alertmanagers").await.is_ok_and(|answer| answer.contains("alertmanager:9093"))
    })
    .await
    .unwrap();
    assert_eq!(ask(environment.alertmanager, "/-/ready").await.unwrap(), "OK");
}
