//! The log of the real program, as a process of its own, with anyone who reads it stopped, gone or slow. The fleet is in memory:
//! nothing else is needed.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::{
    http::{self, UPGRADE},
    nats::NatsServer,
    redis::{Options, RedisServer},
    wait,
};

/// What a kubelet grants a probe at least.
const PROBE: Duration = Duration::from_secs(1);
/// The drain of a fleet without sockets, the last lines' time, and what a loaded machine adds.
const END: Duration = Duration::from_secs(30);
/// What a pipe holds, unless told otherwise.
const PIPE: usize = 64 * 1024;

/// `dev` as a process, and its first pod.
struct Dev {
    child: Child,
    http: SocketAddr,
    welcome: String,
}

impl Dev {
    /// Starts it and waits until it serves.
    fn start(level: &str, errors: impl Into<Stdio>) -> Self {
        Self::start_with(&["--pods", "1"], &[], level, errors)
    }

    fn start_with(arguments: &[&str], variables: &[(&str, &str)], level: &str, errors: impl Into<Stdio>) -> Self {
        // Free a moment ago; the next few are as likely.
        let free = loop {
            let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            if TcpListener::bind(("127.0.0.1", first.port().saturating_add(1))).is_ok() {
                break first;
            }
        };
        let mut child = command("dev", level)
            .args(arguments)
            .args(["--port", &free.port().to_string()])
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let (mut out, mut welcome) = (BufReader::new(child.stdout.take().unwrap()), String::new());
        while !welcome.contains("Ctrl-C") {
            assert!(out.read_line(&mut welcome).unwrap() > 0, "it ended before it served: {:?}", child.wait());
        }
        Self { child, http: free, welcome }
    }

    async fn get(&self, path: &str, more: &str) -> http::Answer {
        http::send(self.http, format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{more}\r\n").as_bytes()).await
    }

    /// A connect with a wrong key.
    async fn refused(&self) {
        let head = format!("GET /ws/acme/a1?x-api-key=wrong HTTP/1.1\r\nHost: test\r\n{UPGRADE}\r\n");
        // Who does so often is told to wait, in place of why.
        assert!([401, 429].contains(&http::send(self.http, head.as_bytes()).await.status));
    }

    async fn assert_well(&self) {
        let asked = Instant::now();
        assert_eq!(self.get("/health", "").await.status, 200);
        assert!(asked.elapsed() < PROBE, "a probe took {:?}", asked.elapsed());
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics", "").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Many requests over one connection, each after the answer to the one before; each is a line at `debug`.
    async fn ask(&self, many: usize) {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        for _ in 0..many {
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
            assert_eq!(http::read_answer(&mut stream).await.unwrap().status, 200);
        }
    }

    /// Publishes an event, as the console does.
    async fn publish(&self, at: SocketAddr, subject: &str, event: &str) {
        let head =
            format!("POST /dev/publish/{subject} HTTP/1.1\r\nHost: {at}\r\nContent-Length: {}\r\nConnection: close", event.len());
        assert_eq!(http::send(at, format!("{head}\r\n\r\n{event}").as_bytes()).await.status, 200);
    }

    /// Ends it by the signal, as soon as it listens to signals.
    async fn terminate(&self) {
        wait::until("it listens to SIGTERM", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
            std::future::ready(u64::from_str_radix(caught, 16).unwrap() & (1 << (15 - 1)) != 0)
        })
        .await;
        assert!(Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status().unwrap().success());
    }

    async fn ended(mut self) -> ExitStatus {
        ended(&mut self.child).await
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(name: &str, level: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daisi-ws-service"));
    command.arg(name).env_clear().env("DAISI_WS_TELEMETRY_LOG_LEVEL", level).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

async fn ended(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(started.elapsed() < END, "it still runs after {END:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A pipe that is full, and whose reader has stopped.
fn full_pipe() -> (PipeReader, io::PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(&[b'.'; PIPE - 1]).unwrap();
    writer.write_all(b"\n").unwrap();
    (reader, writer)
}

/// The log from the pipe, without what was in it before.
fn read_log(mut reader: PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text.trim_start_matches('.').trim_start().to_owned()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("torn: {line}"))).collect()
}

#[tokio::test]
async fn a_log_reader_that_has_stopped_stops_nobody_and_is_told_what_it_missed() {
    let (reader, errors) = full_pipe();
    // All that there is to write, so that the queue is full soon.
    let dev = Dev::start("trace", errors);
    for _ in 0..500 {
        dev.refused().await;
    }
    dev.assert_well().await;
    let mut asked = 0;
    while dev.metric("dws_log_lines_dropped_total").await == 0 {
        dev.ask(100).await;
        asked += 100;
        assert!(asked < 20_000, "the queue has no bound");
    }
    dev.assert_well().await;
    assert_eq!(dev.metric("dws_log_audit_lines_dropped_total").await, 0);
    dev.terminate().await;
    let reading = std::thread::spawn(move || read_log(reader));
    assert!(dev.ended().await.success());
    let log = lines(&reading.join().unwrap());
    let told: Vec<_> = log.iter().filter(|line| line["log.dropped"].as_u64().is_some_and(|dropped| dropped > 0)).collect();
    assert!(!told.is_empty() && told.len() < 5, "{told:?}");
}

#[tokio::test]
async fn a_log_reader_that_never_reads_does_not_hold_up_the_end() {
    let (_reader, errors) = full_pipe();
    let dev = Dev::start("debug", errors);
    dev.refused().await;
    dev.terminate().await;
    assert!(dev.ended().await.success());
}

#[tokio::test]
async fn a_log_reader_that_is_gone_and_a_full_disk_cost_lines_and_nothing_else() {
    let gone = || Stdio::from(io::pipe().unwrap().1);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for errors in [gone(), full()] {
        let dev = Dev::start("trace", errors);
        for _ in 0..200 {
            dev.refused().await;
        }
        dev.assert_well().await;
        dev.terminate().await;
        assert!(dev.ended().await.success());
    }
}

#[tokio::test]
async fn twenty_thousand_refusals_are_a_few_lines() {
    const MANY: u64 = 1000;
    let (reader, errors) = io::pipe().unwrap();
    let dev = Dev::start("info", errors);
    let reading = std::thread::spawn(move || read_log(reader));
    for _ in 0..MANY {
        dev.refused().await;
    }
    let suppressed = dev.metric("dws_log_lines_suppressed_total").await;
    dev.terminate().await;
    assert!(dev.ended().await.success());
    let log = lines(&reading.join().unwrap());
    let refusals: Vec<_> = log.iter().filter(|line| line["message"] == "refused a connect").collect();
    let (whole, counts): (Vec<&Value>, Vec<&Value>) = refusals.into_iter().partition(|line| line["log.suppressed"].is_null());
    let counted: u64 = counts.iter().map(|line| line["log.suppressed"].as_u64().unwrap()).sum();
    assert_eq!(whole.len() as u64 + counted, MANY, "each is a line or counted");
    // A window takes ten seconds; ten minutes for this is a machine that does nothing else.
    assert!(whole.len() < 600 && counts.len() < 60 && suppressed > 0, "{} lines and {} counts", whole.len(), counts.len());
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_never_waits_for_whoever_reads_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (name, arguments, code, reason) in [
        ("serve", vec![], 78, "auth.secret_token"),
        ("dev", vec!["--pods", "1", "--port", &port], 1, "in use"),
        ("serve", vec!["--bogus"], 2, "--bogus"),
    ] {
        let (reader, errors) = io::pipe().unwrap();
        let mut child = command(name, "info").args(&arguments).stderr(errors).spawn().unwrap();
        assert_eq!(ended(&mut child).await.code(), Some(code));
        let said = read_log(reader);
        assert!(said.contains(reason), "{said}");
        let (_reader, errors) = full_pipe();
        let mut child = command(name, "info").args(&arguments).stderr(errors).spawn().unwrap();
        assert_eq!(ended(&mut child).await.code(), Some(code));
    }
}

/// The next text of the socket that has the marker in it.
async fn expect(socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>, marker: &str) {
    wait::within(marker, async {
        while !socket.next().await.unwrap().unwrap().to_text().is_ok_and(|text| text.contains(marker)) {}
    })
    .await;
}

/// At the lowest level, on real servers, with a peer: everything that a library could write down passes by.
#[tokio::test]
async fn no_secret_and_no_payload_reaches_the_log_at_any_level() {
    const PASSWORD: &str = "planted-password";
    let nats = NatsServer::start().await;
    let redis = RedisServer::start_with(Options { password: Some(PASSWORD), ..Options::default() }).await;
    let arguments = ["--pods", "2", "--nats", &nats.url(), "--redis", &redis.config().address];
    let (reader, errors) = io::pipe().unwrap();
    let reading = std::thread::spawn(move || read_log(reader));
    let variables = [("DAISI_WS_REDIS_PASSWORD", PASSWORD), ("DAISI_WS_NATS_STREAM_MAX_BYTES", "16777216")];
    let level = "trace,tungstenite=trace,tokio_tungstenite=trace,hyper=trace,h2=trace,tonic=trace,async_nats=trace,redis=trace,tower=trace";
    let dev = Dev::start_with(&arguments, &variables, level, errors);
    let urls: Vec<&str> = dev.welcome.split_whitespace().filter(|word| word.starts_with("ws://")).collect();
    let of = |url: &str, name: &str| {
        let query = url.split_once('?').unwrap().1;
        form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    let (key, token) = (of(urls[0], "x-api-key"), of(urls[0], "token"));

    // Key and token in the query, on the first pod.
    let request = format!("{}&mark=planted-query", urls[0]).into_client_request().unwrap();
    let stream = TcpStream::connect(dev.http).await.unwrap();
    let (mut first, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    expect(&mut first, "\"ready\"").await;
    // As sub-protocols, on the second: the answer names the protocol alone, or nothing.
    let second = SocketAddr::from(([127, 0, 0, 1], dev.http.port() + 1));
    let (item, bare) = (BASE64_URL_SAFE_NO_PAD.encode(&key), of(urls[1], "token").trim_end_matches('=').to_owned());
    for (offered, named) in [("json.v1, ", Some("json.v1")), ("", None)] {
        let path = urls[1].split_once('?').unwrap().0.splitn(4, '/').nth(3).unwrap();
        let head = format!(
            "GET /{path} HTTP/1.1\r\nHost: test\r\n{UPGRADE}Sec-WebSocket-Protocol: {offered}dws.key.{item}, dws.token.{bare}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(second).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let seen = |answer: &[u8]| String::from_utf8_lossy(answer).into_owned();
        while !seen(&answer).contains("\"ready\"") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", seen(&answer));
        }
        let answer = seen(&answer);
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let protocol = answer.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(protocol, named, "{answer}");
    }
    first.send("{\"type\":\"planted-frame\"}".into()).await.unwrap();
    expect(&mut first, "BadRequest").await;
    // One event through each pod, so that one of them is forwarded.
    for (at, marker) in [(dev.http, "planted-payload-1"), (second, "planted-payload-2")] {
        let event = format!("{{\"event_id\":\"1\",\"row_data\":{{\"text\":\"{marker}\"}}}}");
        dev.publish(at, "wa.acme.agent-7.chats", &event).await;
        expect(&mut first, marker).await;
    }
    dev.get("/ws/acme/a1?token=planted-token", "X-API-Key: planted-key\r\nAuthorization: Bearer planted-bearer\r\n").await;
    dev.terminate().await;
    assert!(dev.ended().await.success());
    let log = reading.join().unwrap();
    assert!(log.contains("\"level\":\"DEBUG\"") && log.contains("an event is dispatched"), "it was not at its lowest level");
    let secrets = [&*key, &*token, &*item, &*bare, PASSWORD, "planted-"];
    let found: Vec<_> = log.lines().filter(|line| secrets.iter().any(|secret| line.contains(secret))).take(5).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn who_did_what_is_in_the_log_at_every_level() {
    let (reader, errors) = io::pipe().unwrap();
    let reading = std::thread::spawn(move || read_log(reader));
    let dev = Dev::start("off", errors);
    let urls: Vec<String> = dev.welcome.split_whitespace().filter(|word| word.starts_with("ws://")).map(str::to_owned).collect();
    let open = async |url: &str| {
        let request = url.into_client_request().unwrap();
        let (mut socket, _) =
            tokio_tungstenite::client_async(request, TcpStream::connect(dev.http).await.unwrap()).await.unwrap();
        expect(&mut socket, "\"ready\"").await;
        socket
    };
    let _admin = open(urls.iter().find(|url| url.contains("/ws/admin")).unwrap()).await;
    let user = urls.iter().find(|url| url.contains("/ws/acme/")).unwrap();
    let _first = open(user).await;
    let _second = open(user).await;
    dev.refused().await;
    dev.publish(dev.http, "wa.acme.agent-7.chats", "{\"event_id\":\"1\"}").await;
    dev.terminate().await;
    assert!(dev.ended().await.success());
    let log = lines(&reading.join().unwrap());
    assert!(log.iter().all(|line| line["audit"] == true), "{log:#?}");
    let of = |action: &str| log.iter().find(|line| line["action"] == action).unwrap_or_else(|| panic!("no {action}: {log:#?}"));
    for (action, outcome) in [
        ("connect.admin", "done"),
        ("session.take_over", "done"),
        ("connect.user", "refused"),
        ("event.publish", "done"),
        ("pod.drain", "done"),
    ] {
        assert_eq!(of(action)["outcome"], outcome, "{action}");
    }
    for action in ["connect.admin", "session.take_over", "connect.user"] {
        assert_eq!(of(action)["client.address"], "127.0.0.1", "{action}");
        assert!(of(action)["request.id"].as_str().is_some_and(|id| id.len() == 32), "{action}");
    }
    let taken = of("session.take_over");
    assert_eq!((&taken["company.id"], &taken["agent.id"]), (&"acme".into(), &"agent-7".into()));
    assert!(taken["user.id"].is_string() && taken["connection.id"].is_string(), "{taken}");
    assert!(of("connect.admin")["admin.id"].is_string());
    assert_eq!((&of("event.publish")["what"], &of("pod.drain")["what"]), (&"wa.acme.agent-7.chats".into(), &"SIGTERM".into()));
    assert_eq!(of("connect.user")["error.code"], "InvalidAPIKey");
}
