//! The doors of sockets: every check before a session, in its order.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{Pod, assert_passed};
use crate::support::{
    fixture::{self, API_KEY, MINT_KEY, admin_token, user_token},
    http::{UPGRADE, send},
};

fn acme_token() -> String {
    user_token("acme", "a1", "sari")
}

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
async fn key_and_token_may_come_as_subprotocols() {
    let pod = Pod::start().await;
    let (key, token) = (BASE64_URL_SAFE_NO_PAD.encode(API_KEY), acme_token().trim_end_matches('=').to_owned());
    let with = |items: &str| format!("{UPGRADE}Sec-WebSocket-Protocol: {items}\r\n");
    assert_passed(&pod.get("/ws/acme/a1", &with(&format!("json.v1, dws.key.{key}, dws.token.{token}"))).await);
    assert_passed(&pod.get("/ws/acme/a1", &with(&format!("dws.token.{token},dws.key.{key}"))).await);
    pod.get("/ws/acme/a1", &with(&format!("json.v1, dws.token.{token}"))).await.assert_error(401, "InvalidAPIKey");
    pod.get("/ws/acme/a1", &with(&format!("json.v1, dws.key.{key}"))).await.assert_error(403, "InvalidToken");
    pod.get("/ws/acme/a1", &with(&format!("dws.key.{API_KEY}, dws.token.{token}"))).await.assert_error(401, "InvalidAPIKey");
    // What is in the query or a header wins, as it did before.
    let wrong = format!("X-API-Key: wrong\r\n{}", with(&format!("dws.key.{key}, dws.token.{token}")));
    pod.get("/ws/acme/a1", &wrong).await.assert_error(401, "InvalidAPIKey");
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
    let yesterday = || daisi_ws_service::runtime::clock::now().checked_sub(Duration::from_secs(86_400)).unwrap();
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
    config.server.allowed_origins = ["https://app.acme.example", "*.acme.example"].map(|origin| origin.parse().unwrap()).to_vec();
    pod.config.send_replace(Arc::new(config));
    assert_passed(&pod.get(&target, &head("https://app.acme.example")).await);
    assert_passed(&pod.get(&target, &head("https://other.acme.example")).await);
    assert_passed(&pod.knock(&target).await);
    pod.get(&target, &head("https://anywhere.test")).await.assert_error(403, "InvalidToken");
}
