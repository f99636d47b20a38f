//! Everything that a browser or operator meets over HTTP, on a real server.

mod limits;
mod service;
mod sockets;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, routing::get as route};
use daisi_ws_service::{
    adapters::{
        http::{HttpParts, HttpServer, Intake, probe_router, router},
        memory::store::Store,
    },
    application::admission::{connect::Connector, throttle::Throttle},
    config::Config,
    metrics::Metrics,
    readiness::{Dependency, Readiness},
    runtime::{
        lifecycle::{Shutdown, Tasks},
        workers::Workers,
    },
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    fixture::{self, API_KEY, MINT_KEY, user_token},
    fleet::user,
    http::{Answer, UPGRADE, get, post, read_answer, send},
    wait,
};

/// A pod as HTTP sees it, with a connector behind it that has no room.
struct Pod {
    address: SocketAddr,
    probe: SocketAddr,
    config: watch::Sender<Arc<Config>>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    stop: CancellationToken,
    _workers: Workers,
}

impl Pod {
    async fn start() -> Self {
        Self::start_on(Workers::start(2).unwrap(), fixture::full_connector).await
    }

    /// The same, on the test's thread and clock.
    async fn start_here() -> Self {
        Self::start_here_with(fixture::full_connector).await
    }

    async fn start_here_with(connector: impl FnOnce(&Arc<Metrics>) -> Arc<Connector>) -> Self {
        Self::start_on(Workers::of_the_runtime(), connector).await
    }

    async fn start_on(workers: Workers, connector: impl FnOnce(&Arc<Metrics>) -> Arc<Connector>) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::Span::none());
        let (config, receiver) = watch::channel(Arc::new(fixture::config()));
        let readiness = Readiness::default();
        let parts = HttpParts {
            config: receiver.clone(),
            auth: fixture::authenticator(fixture::config(), &metrics),
            minter: fixture::minter(daisi_ws_service::runtime::clock::now),
            connector: connector(&metrics),
            throttle: Arc::new(Throttle::new(receiver.clone(), Arc::clone(&metrics))),
            readiness: readiness.clone(),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
        };
        let extra = Router::new().route("/console", route(async || "a page"));
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, stop) = (server.local_addr(), CancellationToken::new());
        let probes = HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let probe = probes.local_addr();
        probes.serve(probe_router(&parts), Intake::Probes, &tasks, workers.team(), stop.clone());
        server.serve(router(parts, Some(extra)), Intake::Browsers(receiver), &tasks, workers.team(), stop.clone());
        Self { address, probe, config, readiness, metrics, tasks, stop, _workers: workers }
    }

    async fn get(&self, target: &str, head: &str) -> Answer {
        get(self.address, target, head).await
    }

    async fn post(&self, target: &str, head: &str, body: &str) -> Answer {
        post(self.address, target, head, body).await
    }

    /// Knocks with a valid handshake and API key.
    async fn knock(&self, target: &str) -> Answer {
        self.get(target, &format!("X-API-Key: {API_KEY}\r\n{UPGRADE}")).await
    }

    async fn mint(&self, target: &str, body: serde_json::Value) -> Answer {
        self.post(target, &format!("X-API-Key: {MINT_KEY}\r\n"), &body.to_string()).await
    }

    fn all_up(&self) {
        for dependency in [Dependency::Nats, Dependency::Redis, Dependency::Grpc] {
            self.readiness.observe(dependency, true);
        }
    }
}

/// What a full pod answers: every check before it has been passed.
#[track_caller]
fn assert_passed(answer: &Answer) {
    answer.assert_error(503, "ServiceUnavailable");
    assert_eq!(answer.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn a_request_id_comes_back_or_is_made() {
    let pod = Pod::start().await;
    for target in ["/health", "/ws/admin", "/nowhere", "/console"] {
        assert_eq!(pod.get(target, "X-Request-ID: abc-123\r\n").await.header("x-request-id"), Some("abc-123"), "{target}");
        for head in ["", "X-Request-ID: \r\n", "X-Request-ID: a b\r\n", &format!("X-Request-ID: {}\r\n", "x".repeat(129))] {
            let answer = pod.get(target, head).await;
            let made = answer.header("x-request-id").unwrap();
            assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{target}: {made}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_have_the_one_error_shape() {
    let pod = Pod::start().await;
    for target in ["/", "/nowhere", "/healthz", "/ws/a/b/c", "/generate-token/"] {
        pod.get(target, "").await.assert_error(404, "BadRequest");
    }
    for target in ["/health", "/ready", "/metrics", "/ws/admin", "/ws/a/b"] {
        pod.post(target, "", "").await.assert_error(405, "BadRequest");
    }
    let answer = pod.get("/generate-token", "").await;
    answer.assert_error(405, "BadRequest");
    assert_eq!(answer.header("allow"), Some("POST"));
}

#[tokio::test]
async fn an_extra_router_is_served_beside_the_routes() {
    let pod = Pod::start().await;
    let answer = pod.get("/console", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "a page"));
}

/// Where log lines go in a test.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_key_token_or_query_reaches_a_log_line() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    // With a single subscriber, tracing asks the thread that first meets a line whether anybody listens: another test's thread
    // would say no, for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let pod = Pod::start_here().await;
    let (good, bad) = (user_token("acme", "a1", "sari"), user_token("other", "a1", "sari"));
    for token in [&good, &bad] {
        pod.knock(&format!("/ws/acme/a1?token={token}&x-api-key={API_KEY}&mark=in-the-query")).await;
        pod.get("/ws/acme/a1", &format!("X-API-Key: {API_KEY}\r\nAuthorization: Bearer {token}\r\n{UPGRADE}")).await;
        pod.get(&format!("/health?token={token}&mark=in-the-query"), "").await;
    }
    pod.get("/ws/admin", "X-API-Key: a-wrong-key\r\n").await;
    pod.get("/ws/acme/a1", &format!("{UPGRADE}Sec-WebSocket-Protocol: json.v1, dws.key.YS13cm9uZy1rZXk, dws.token.{good}\r\n"))
        .await;
    pod.mint("/generate-token", json!({ "company_id": "acme" })).await;
    let minted = pod.mint("/admin/generate-token", json!({ "admin_id": "root", "expires_in_seconds": 60 })).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for expected in ["refused a connect", "could not serve a connect", "made a token", "made no token", "answered a request"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let minted = minted.json()["token"].as_str().unwrap().to_owned();
    for secret in [API_KEY, MINT_KEY, &good, &bad, &minted, "a-wrong-key", "YS13cm9uZy1rZXk", "in-the-query"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn a_connect_that_the_store_refuses_says_in_one_line_why_and_what_to_do_and_one_that_it_is_away_for_says_so() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let store = Store::new();
    let sari = user("acme", "a1", "sari").session_key();
    let pod = Pod::start_here_with(|metrics| fixture::connector(fixture::config(), &store, metrics)).await;
    let target = format!("/ws/acme/a1?token={}", user_token("acme", "a1", "sari"));
    let said = || String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    store.refuse_lock(&sari, true);
    // Until the pod has its place, it is refused for want of that.
    wait::until("a refusal of the store", || async {
        let refused = pod.knock(&target).await;
        refused.assert_error(503, "ServiceUnavailable");
        assert_eq!(
            refused.json()["message"],
            "the session store is unavailable; try again shortly",
            "the client is told no more"
        );
        said().contains("store_wrong_type")
    })
    .await;
    store.refuse_lock(&sari, false);
    store.set_down(true);
    pod.knock(&target).await.assert_error(503, "ServiceUnavailable");
    let text = said();
    let all: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refusals: Vec<_> = all.iter().filter(|line| line["message"] == "could not serve a connect").collect();
    let [.., first, last] = &refusals[..] else { panic!("{text}") };
    assert_eq!((&first["error.kind"], &last["error.kind"]), (&"store_wrong_type".into(), &"store_unreachable".into()), "{text}");
    assert!(first["error.cause"].as_str().unwrap().contains("under the name of a lock: WRONGTYPE"), "{first}");
    assert!(first["error.advice"].as_str().unwrap().starts_with("delete the key"), "{first}");
    assert!(last["error.cause"].as_str().unwrap().ends_with("connection refused"), "{last}");
    assert!(all.iter().all(|line| !line.to_string().contains("sari")), "no session's id: {text}");
}

#[tokio::test]
async fn heads_over_the_limits_and_other_protocols_are_refused() {
    let pod = Pod::start().await;
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    pod.get("/health", &long).await.assert_error(431, "BadRequest");
    let many: String = (0..150).map(|n| format!("X-{n}: x\r\n")).collect();
    pod.get("/health", &many).await.assert_error(431, "BadRequest");
    pod.get(&format!("/health?{}", "x".repeat(20_000)), "").await.assert_error(414, "BadRequest");
    for (bytes, status) in [
        ("nonsense\r\n\r\n", 400),
        ("GET /health HTTP/3.0\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nNo colon\r\n\r\n", 400),
        ("POST /generate-token HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        ("POST /generate-token HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("\u{16}\u{3}\u{1}\u{1}\r\n", 400),
    ] {
        let answer = send(pod.address, bytes.as_bytes()).await;
        answer.assert_error(status, "BadRequest");
        assert_eq!((answer.header("connection"), answer.header("cache-control")), (Some("close"), Some("no-store")), "{bytes:?}");
    }
    assert_eq!(pod.get("/health", "").await.status, 200);
}

#[tokio::test]
async fn a_refusal_arrives_whole_however_much_the_client_still_sends() {
    let pod = Pod::start().await;
    let huge = format!("X-Long: {}\r\n", "x".repeat(900_000));
    for _ in 0..5 {
        pod.get("/health", &huge).await.assert_error(431, "BadRequest");
    }
}

#[tokio::test]
async fn a_refusal_behind_a_good_request_on_the_same_connection_has_the_shape_too() {
    let pod = Pod::start().await;
    let mut stream = TcpStream::connect(pod.address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
    read_answer(&mut stream).await.unwrap().assert_error(400, "BadRequest");
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_told_that_it_took_too_long_and_silence_is_not() {
    let pod = Pod::start_here().await;
    let mut stream = TcpStream::connect(pod.address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: te").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("x-request-id: "), "{text}");
    let mut silent = TcpStream::connect(pod.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_handshake_that_comes_as_http_1_0_says_what_the_proxy_has_to_do() {
    let pod = Pod::start().await;
    // As nginx passes it on without proxy_http_version and proxy_set_header.
    let request = format!(
        "GET /ws/acme/a1 HTTP/1.0\r\nHost: gateway\r\nConnection: close\r\nX-API-Key: {API_KEY}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let answer = send(pod.address, request.as_bytes()).await;
    answer.assert_error(400, "BadRequest");
    assert!(answer.body.contains("HTTP/1.0") && answer.body.contains("proxy_http_version 1.1"), "{}", answer.body);
    let answer =
        pod.get("/ws/acme/a1", &format!("X-API-Key: {API_KEY}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")).await;
    answer.assert_error(400, "BadRequest");
    assert!(answer.body.contains("a proxy in between must pass both headers on"), "{}", answer.body);
    let old = UPGRADE.replace("13", "8");
    let answer = pod.get("/ws/acme/a1", &format!("X-API-Key: {API_KEY}\r\n{old}")).await;
    answer.assert_error(426, "BadRequest");
    let named = ["sec-websocket-version", "upgrade", "connection"].map(|name| answer.header(name));
    assert_eq!(named, [Some("13"), Some("websocket"), Some("Upgrade")]);
}

#[tokio::test]
async fn a_connection_serves_request_after_request() {
    let pod = Pod::start().await;
    let mut stream = TcpStream::connect(pod.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_drain_keeps_the_listener_and_stop_ends_it_with_its_connections() {
    let pod = Pod::start().await;
    let mut idle = TcpStream::connect(pod.address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut idle).await.unwrap().status, 200);
    pod.tasks.shutdown().soft.cancel();
    assert_eq!(pod.get("/metrics", "").await.status, 200);
    pod.stop.cancel();
    timeout(Duration::from_secs(5), pod.tasks.ended()).await.expect("tasks left");
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0);
    assert!(TcpStream::connect(pod.address).await.is_err());
}

#[tokio::test]
async fn a_body_that_waits_for_ever_does_not_survive_the_stop() {
    let pod = Pod::start().await;
    let mut stream = TcpStream::connect(pod.address).await.unwrap();
    let head = format!("POST /generate-token HTTP/1.1\r\nHost: test\r\nX-API-Key: {MINT_KEY}\r\nContent-Length: 10\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    pod.stop.cancel();
    pod.tasks.shutdown().hard.cancel();
    timeout(Duration::from_secs(5), pod.tasks.ended()).await.expect("tasks left");
}

#[tokio::test]
async fn the_record_of_a_token_names_who_had_it_made_for_whom_and_with_which_key() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let pod = Pod::start_here().await;
    let wish = json!({ "company_id": "acme", "agent_id": "a1", "user_id": "sari@example.com", "expires_in_seconds": 60 });
    assert_eq!(pod.mint("/generate-token", wish.clone()).await.status, 200);
    let mut endless = wish.clone();
    endless["expires_in_seconds"] = 0.into();
    assert_eq!(pod.mint("/generate-token", endless).await.status, 400);
    let wrong = post(pod.address, "/generate-token", "X-API-Key: wrong\r\nX-Request-ID: r-1\r\n", &wish.to_string()).await;
    assert_eq!(wrong.status, 401);
    let admin = json!({ "admin_id": "root", "expires_in_seconds": 60, "subscribed_company_id": "acme" });
    assert_eq!(pod.mint("/admin/generate-token", admin).await.status, 200);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let all: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let records: Vec<_> = all.iter().filter(|line| line["action"] == "token.make").collect();
    let [made, refused, stranger, of_admin] = &records[..] else { panic!("{text}") };
    let fingerprint = &hex::encode(Sha256::digest(MINT_KEY))[..8];
    for record in [made, refused] {
        for (name, value) in [
            ("client.address", "127.0.0.1"),
            ("company.id", "acme"),
            ("agent.id", "a1"),
            ("user.id", "sari@example.com"),
            ("key.fingerprint", fingerprint),
        ] {
            assert_eq!(record[name], value, "{name} of {record}");
        }
    }
    assert_eq!((&made["outcome"], &made["token.life_seconds"]), (&"done".into(), &60.into()));
    assert_eq!((&refused["outcome"], &refused["error.code"]), (&"refused".into(), &"BadRequest".into()));
    assert_eq!((&stranger["outcome"], &stranger["request.id"]), (&"refused".into(), &"r-1".into()));
    assert!(stranger["key.fingerprint"].is_null() && stranger["user.id"].is_null(), "{stranger}");
    assert_eq!((&of_admin["admin.id"], &of_admin["company.id"]), (&"root".into(), &"acme".into()));
    assert!(records.iter().all(|record| record["audit"] == true), "{text}");
}
