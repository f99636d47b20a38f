//! Who has nothing, or only the key that every page has, costs nobody but the pod anything.

use daisi_ws_service::{application::auth::token::TokenKey, config::Secret};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpStream, tcp::OwnedReadHalf},
};

use super::RealFleet;
use crate::support::{
    fixture::{API_KEY, MINT_KEY, user_token},
    http::{get, post},
    wait,
};

/// Every command that Redis carries out, as it does.
struct Monitor {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _writing: tokio::net::tcp::OwnedWriteHalf,
}

impl Monitor {
    async fn start(address: &str) -> Self {
        let (reading, mut writing) = TcpStream::connect(address.replace("localhost", "127.0.0.1")).await.unwrap().into_split();
        writing.write_all(b"MONITOR\r\n").await.unwrap();
        let mut lines = BufReader::new(reading).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        Self { lines, _writing: writing }
    }

    /// What was carried out until a command that has this text.
    async fn until(&mut self, mark: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = wait::within("the mark", self.lines.next_line()).await.unwrap().unwrap();
            if line.contains(mark) {
                return seen;
            }
            seen.push(line);
        }
    }
}

fn upgrade(key: &str) -> String {
    format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-API-Key: {key}\r\n"
    )
}

#[tokio::test]
async fn strangers_and_made_up_tokens_cost_redis_nothing() {
    let fleet = RealFleet::with(1, &[("DAISI_WS_AUTH_TOKEN_CACHE", "redis")]).await;
    let pod = fleet.pods[0].http;
    let genuine = user_token("acme", "a1", "sari");
    let foreign = TokenKey::parse(&Secret::new("77".repeat(32))).unwrap();
    let plaintext = br#"{"company_id":"acme","agent_id":"a1","user_id":"sari","expires_at":"2999-01-01T00:00:00Z"}"#;
    let mut monitor = Monitor::start(&fleet.redis.config().address).await;

    let (page, nobody) = (upgrade(API_KEY), upgrade("not-the-key-0123456789"));
    let mut refused = 0;
    let mut is_refused = |status: u16| {
        assert!((400..500).contains(&status), "{status}");
        refused += 1;
    };
    for n in 0..8 {
        // Each is another token: nothing that is remembered helps.
        let (made_up, sealed) = (format!("{n:0>300}"), foreign.seal(plaintext).unwrap());
        for token in [made_up.as_str(), &sealed, "x", &"A".repeat(4096)] {
            is_refused(get(pod, &format!("/ws/acme/a1?token={token}"), &page).await.status);
            is_refused(get(pod, &format!("/ws/admin?token={token}"), &page).await.status);
        }
    }
    is_refused(get(pod, "/ws/acme/a1", &page).await.status);
    is_refused(get(pod, &format!("/ws/acme/a1?token={genuine}"), &nobody).await.status);
    is_refused(get(pod, &format!("/ws/acme/other?token={genuine}"), &page).await.status);
    is_refused(get(pod, &format!("/ws/admin?token={genuine}"), &page).await.status);
    is_refused(get(pod, &format!("/ws/acme/a1?token={genuine}"), &format!("X-API-Key: {API_KEY}\r\n")).await.status);
    let wish = r#"{"company_id":"acme","agent_id":"a1","user_id":"sari","expires_in_seconds":60}"#;
    for path in ["/generate-token", "/admin/generate-token"] {
        is_refused(post(pod, path, &format!("X-API-Key: {API_KEY}\r\n"), wish).await.status);
        is_refused(post(pod, path, "", wish).await.status);
    }
    for path in ["/health", "/ready", "/metrics"] {
        get(pod, path, "").await;
    }
    assert_eq!(refused, 73);
    // So that the test can fail: minting asks nobody, a genuine token does.
    assert_eq!(post(pod, "/generate-token", &format!("X-API-Key: {MINT_KEY}\r\n"), wish).await.status, 200);
    let _client = fleet.pods[0].connect("/ws/acme/a1", &genuine).await;
    let before = monitor.until("session:acme:a1:sari").await;
    let of_tokens = before.iter().filter(|line| line.contains("token_cache:")).count();
    assert_eq!(of_tokens, 1, "only the genuine one is left for old pods: {before:?}");
    let of_sessions: Vec<_> = before.iter().filter(|line| line.contains("acme:") || line.contains("session:admin")).collect();
    assert!(of_sessions.is_empty(), "{of_sessions:?}");
}
