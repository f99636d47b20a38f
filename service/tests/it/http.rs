//! Everything that a browser or operator meets over HTTP, on a real server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get as route};
use daisi_ws_service::{
    adapters::http::{HttpParts, HttpServer, router},
    application::{
        connect::Connector,
        readiness::{Dependency, Readiness},
    },
    config::Config,
    lifecycle::{Shutdown, Tasks},
    metrics::Metrics,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    fixture::{self, API_KEY, MINT_KEY, admin_token, user_token},
    http::{Answer, UPGRADE, get, post, read_answer, send},
};

struct Pod {
    address: SocketAddr,
    config: watch::Sender<Arc<Config>>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Pod {
    async fn start() -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::Span::none());
        let (config, receiver) = watch::channel(Arc::new(fixture::config()));
        let readiness = Readiness::default();
        let parts = HttpParts {
            config: receiver,
            auth: fixture::authenticator(fixture::config(), &metrics),
            minter: fixture::minter(daisi_ws_service::clock::now),
            connector: Arc::new(Connector {}),
            readiness: readiness.clone(),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
        };
        let extra = Router::new().route("/console", route(async || "a page"));
        let server = HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, stop) = (server.local_addr(), CancellationToken::new());
        server.serve(router(parts, Some(extra)), &tasks, stop.clone());
        Self { address, config, readiness, metrics, tasks, stop }
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

/// What the stub of the connector answers: every check before it has been passed.
#[track_caller]
fn assert_passed(answer: &Answer) {
    answer.assert_error(503, "ServiceUnavailable");
    assert_eq!(answer.header("retry-after"), Some("5"));
}

fn acme_token() -> String {
    user_token("acme", "a1", "sari")
}

// ---- sockets ---------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_good_request_passes_every_check() {
    let pod = Pod::start().await;
    assert_passed(&pod.knock(&format!("/ws/acme/a1?token={}", acme_token())).await);
    assert_passed(&pod.knock(&format!("/ws/admin?token={}", admin_token("root"))).await);
    let refused = &pod.metrics.connections_refused_total;
    assert_eq!(refused.with_label_values(&["user", "ServiceUnavailable"]).get(), 1);
    assert_eq!(refused.with_label_values(&["admin", "ServiceUnavailable"]).get(), 1);
}

#[tokio::test]
async fn without_the_browsers_key_nothing_else_is_looked_at() {
    let pod = Pod::start().await;
    for target in ["/ws/acme/a1", "/ws/admin"] {
        pod.get(target, "").await.assert_error(401, "InvalidAPIKey");
        pod.get(target, "X-API-Key: wrong\r\n").await.assert_error(401, "InvalidAPIKey");
        pod.get(target, &format!("X-API-Key: {MINT_KEY}\r\n")).await.assert_error(401, "InvalidAPIKey");
        pod.get(target, "X-API-Key: \u{ff}\r\n").await.assert_error(401, "InvalidAPIKey");
    }
    assert_eq!(pod.metrics.connections_refused_total.with_label_values(&["user", "InvalidAPIKey"]).get(), 4);
    assert_eq!(pod.metrics.auth_failure_total.with_label_values(&["admin", "api_key"]).get(), 4);
}

#[tokio::test]
async fn a_key_in_the_header_beats_one_in_the_query() {
    let pod = Pod::start().await;
    let token = acme_token();
    let good = format!("/ws/acme/a1?token={token}&x-api-key={API_KEY}");
    assert_passed(&pod.get(&good, UPGRADE).await);
    pod.get(&good, &format!("X-API-Key: wrong\r\n{UPGRADE}")).await.assert_error(401, "InvalidAPIKey");
    assert_passed(&pod.knock(&format!("/ws/acme/a1?token={token}&x-api-key=wrong")).await);
}

#[tokio::test]
async fn a_token_in_the_query_beats_the_bearer() {
    let pod = Pod::start().await;
    let bearer = |token: &str| format!("X-API-Key: {API_KEY}\r\nAuthorization: Bearer {token}\r\n{UPGRADE}");
    let token = acme_token();
    assert_passed(&pod.get("/ws/acme/a1", &bearer(&token)).await);
    assert_passed(&pod.get(&format!("/ws/acme/a1?token={token}"), &bearer("junk")).await);
    pod.get("/ws/acme/a1?token=junk", &bearer(&token)).await.assert_error(403, "InvalidToken");
}

#[tokio::test]
async fn a_plain_get_with_a_valid_token_is_a_bad_request() {
    let pod = Pod::start().await;
    let target = format!("/ws/acme/a1?token={}", acme_token());
    pod.get(&target, &format!("X-API-Key: {API_KEY}\r\n")).await.assert_error(400, "BadRequest");
    // It never came as far as the token, let alone a lock.
    assert_eq!(pod.metrics.auth_success_total.with_label_values(&["company"]).get(), 0);
    pod.get(
        &target,
        &format!("X-API-Key: {API_KEY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
    )
    .await
    .assert_error(400, "BadRequest");
    let old = send(
        pod.address,
        format!("GET {target} HTTP/1.0\r\nX-API-Key: {API_KEY}\r\nConnection: Upgrade\r\n{UPGRADE}\r\n").as_bytes(),
    )
    .await;
    old.assert_error(400, "BadRequest");
}

#[tokio::test]
async fn another_websocket_version_is_told_which_one_to_use() {
    let pod = Pod::start().await;
    let head = format!("X-API-Key: {API_KEY}\r\n{}", UPGRADE.replace("Version: 13", "Version: 8"));
    let answer = pod.get("/ws/admin", &head).await;
    answer.assert_error(426, "BadRequest");
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
}

#[tokio::test]
async fn tokens_that_open_nothing_are_refused_alike() {
    let pod = Pod::start().await;
    for token in ["", "%21", "AAAA", &admin_token("root"), &"A".repeat(5000)] {
        pod.knock(&format!("/ws/acme/a1?token={token}")).await.assert_error(403, "InvalidToken");
    }
    pod.knock("/ws/acme/a1").await.assert_error(403, "InvalidToken");
    pod.knock(&format!("/ws/admin?token={}", acme_token())).await.assert_error(403, "InvalidToken");
}

#[tokio::test]
async fn an_expired_token_is_refused_and_an_unpadded_one_is_not() {
    let pod = Pod::start().await;
    let yesterday = || daisi_ws_service::clock::now().checked_sub(Duration::from_secs(86_400)).unwrap();
    let expired = fixture::minter(yesterday).user(&fixture::user_request("acme", "a1", "sari"), Duration::from_secs(60)).unwrap();
    let answer = pod.knock(&format!("/ws/acme/a1?token={expired}")).await;
    answer.assert_error(403, "InvalidToken");
    assert_eq!(answer.json()["message"], "the token has expired");
    assert_eq!(pod.metrics.auth_failure_total.with_label_values(&["company", "expired"]).get(), 1);
    for user in ["u", "us", "use"] {
        let token = user_token("acme", "a1", user);
        assert_passed(&pod.knock(&format!("/ws/acme/a1?token={}", token.trim_end_matches('='))).await);
        assert_passed(&pod.knock(&format!("/ws/acme/a1?token={}", token.replace('=', "%3D"))).await);
    }
}

#[tokio::test]
async fn the_path_must_name_the_tokens_company_and_agent() {
    let pod = Pod::start().await;
    let token = acme_token();
    for path in ["other/a1", "acme/other", "*/*", "acme/*", "%3E/a1", "acme/a1%2Fx", "acme/a1%20", "ACME/a1", "admin/a1"] {
        pod.knock(&format!("/ws/{path}?token={token}")).await.assert_error(403, "InvalidToken");
    }
    pod.knock(&format!("/ws/acme/%ff?token={token}")).await.assert_error(400, "BadRequest");
    assert_passed(&pod.knock(&format!("/ws/%61cme/a1?token={token}")).await);
}

#[tokio::test]
async fn no_spelling_of_a_path_reaches_another_door() {
    let pod = Pod::start().await;
    let token = admin_token("root");
    for path in [
        "/ws/admin/",
        "/ws/%61dmin",
        "/ws//admin",
        "//ws/admin",
        "/ws/admin%2F",
        "/ws/./admin",
        "/WS/admin",
        "/ws",
        "/ws/",
        "/ws/a/b/c",
    ] {
        let answer = pod.knock(&format!("{path}?token={token}")).await;
        assert!([403, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    assert_eq!(pod.metrics.auth_success_total.with_label_values(&["admin"]).get(), 0);
}

#[tokio::test]
async fn the_list_of_origins_is_followed_as_it_changes() {
    let pod = Pod::start().await;
    let target = format!("/ws/acme/a1?token={}", acme_token());
    let head = |origin: &str| format!("X-API-Key: {API_KEY}\r\nOrigin: {origin}\r\n{UPGRADE}");
    assert_passed(&pod.get(&target, &head("https://anywhere.test")).await);
    let mut config = fixture::config();
    config.server.allowed_origins = vec!["https://app.acme.example".into(), "*.acme.example".into()];
    pod.config.send_replace(Arc::new(config));
    assert_passed(&pod.get(&target, &head("https://app.acme.example")).await);
    assert_passed(&pod.get(&target, &head("https://other.acme.example")).await);
    assert_passed(&pod.knock(&target).await);
    pod.get(&target, &head("https://anywhere.test")).await.assert_error(403, "InvalidToken");
}

// ---- the token API ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn minted_tokens_open_their_doors() {
    let pod = Pod::start().await;
    let body = json!({ "company_id": "acme", "agent_id": "a1", "user_id": "sari", "expires_in_seconds": 60, "unknown": [1] });
    let answer = pod.mint("/generate-token", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_passed(&pod.knock(&format!("/ws/acme/a1?token={}", answer.json()["token"].as_str().unwrap())).await);
    let answer = pod.mint("/admin/generate-token", json!({ "admin_id": "root", "expires_in_seconds": 60 })).await;
    assert_passed(&pod.knock(&format!("/ws/admin?token={}", answer.json()["token"].as_str().unwrap())).await);
}

#[tokio::test]
async fn the_browsers_key_does_not_open_the_token_api() {
    let pod = Pod::start().await;
    for target in ["/generate-token", "/admin/generate-token"] {
        for head in [String::new(), format!("X-API-Key: {API_KEY}\r\n")] {
            pod.post(target, &head, "{}").await.assert_error(401, "InvalidAPIKey");
        }
        pod.post(&format!("{target}?x-api-key={MINT_KEY}"), "", "{}").await.assert_error(401, "InvalidAPIKey");
    }
}

#[tokio::test]
async fn a_request_that_makes_no_token_says_why() {
    let pod = Pod::start().await;
    let user = |company: &str, life: serde_json::Value| json!({ "company_id": company, "agent_id": "a1", "user_id": "u", "expires_in_seconds": life });
    for body in [
        json!([]),
        json!({}),
        json!({ "company_id": "acme" }),
        user("", json!(60)),
        user("a:b", json!(60)),
        user("*", json!(60)),
        user("acme", json!(0)),
        user("acme", json!(-5)),
        user("acme", json!(1.5)),
        user("acme", json!("60")),
        user("acme", json!(fixture::MAX_TOKEN_TTL + 1)),
        user("acme", json!(u64::MAX)),
    ] {
        pod.mint("/generate-token", body).await.assert_error(400, "BadRequest");
    }
    let restricted = json!({ "admin_id": "root", "expires_in_seconds": 60, "subscribed_company_id": "other", "company_id_restriction": "acme" });
    pod.mint("/admin/generate-token", restricted).await.assert_error(400, "BadRequest");
}

#[tokio::test]
async fn a_restricted_admin_can_be_minted_for_its_own_company() {
    let pod = Pod::start().await;
    for subscribed in [json!("acme"), json!("*"), json!(""), json!(null)] {
        let body = json!({ "admin_id": "root", "expires_in_seconds": 60, "subscribed_company_id": subscribed, "company_id_restriction": "acme" });
        let answer = pod.mint("/admin/generate-token", body).await;
        assert_passed(&pod.knock(&format!("/ws/admin?token={}", answer.json()["token"].as_str().unwrap())).await);
    }
}

#[tokio::test]
async fn an_oversized_body_is_refused() {
    let pod = Pod::start().await;
    let body = json!({ "admin_id": "root", "expires_in_seconds": 60, "pad": "x".repeat(16 * 1024) });
    pod.mint("/admin/generate-token", body).await.assert_error(400, "BadRequest");
    let body = json!({ "admin_id": "root", "expires_in_seconds": 60, "pad": "x".repeat(15 * 1024) });
    assert_eq!(pod.mint("/admin/generate-token", body).await.status, 200);
}

// ---- operators -------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn health_needs_nothing_but_the_process() {
    let pod = Pod::start().await;
    pod.tasks.shutdown().soft.cancel();
    let answer = pod.get("/health", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn ready_follows_the_dependencies_and_the_drain() {
    let pod = Pod::start().await;
    let answer = pod.get("/ready", "").await;
    assert_eq!(answer.status, 503);
    let none = json!({ "nats": "disconnected", "redis": "disconnected", "grpc": "not_serving" });
    assert_eq!(answer.json(), json!({ "status": "NOT_READY", "dependencies": none }));
    pod.all_up();
    let answer = pod.get("/ready", "").await;
    assert_eq!(answer.status, 200);
    let all = json!({ "nats": "connected", "redis": "connected", "grpc": "serving" });
    assert_eq!(answer.json(), json!({ "status": "READY", "dependencies": all }));
    pod.readiness.observe(Dependency::Redis, false);
    assert_eq!(pod.get("/ready", "").await.status, 200, "within the grace");
    let mut config = fixture::config();
    config.server.ready_grace = Duration::ZERO;
    pod.config.send_replace(Arc::new(config));
    let answer = pod.get("/ready", "").await;
    assert_eq!((answer.status, &answer.json()["dependencies"]["redis"]), (503, &json!("disconnected")));
    pod.all_up();
    assert_eq!(pod.get("/ready", "").await.status, 200);
    pod.tasks.shutdown().soft.cancel();
    let answer = pod.get("/ready", "").await;
    assert_eq!((answer.status, &answer.json()["status"], &answer.json()["draining"]), (503, &json!("NOT_READY"), &json!(true)));
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let pod = Pod::start().await;
    pod.get("/ws/admin", "").await;
    let answer = pod.get("/metrics", "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    assert!(answer.body.contains("dws_connections_refused_total{code=\"InvalidAPIKey\",type=\"admin\"} 1"), "{}", answer.body);
}

// ---- every route -----------------------------------------------------------------------------------------------------------------

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

// ---- connections -----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn heads_over_the_limits_and_other_protocols_are_refused() {
    let pod = Pod::start().await;
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    assert_eq!(pod.get("/health", &long).await.status, 431);
    let many: String = (0..150).map(|n| format!("X-{n}: x\r\n")).collect();
    assert_eq!(pod.get("/health", &many).await.status, 431);
    assert_eq!(send(pod.address, b"nonsense\r\n\r\n").await.status, 400);
    assert_eq!(pod.get("/health", "").await.status, 200);
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
