//! The token API, and what operators ask.

use std::{sync::Arc, time::Duration};

use daisi_ws_service::readiness::Dependency;
use serde_json::json;

use super::{Pod, assert_passed};
use crate::support::fixture::{self, API_KEY, MINT_KEY};

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
async fn a_full_pod_is_not_ready_while_another_has_room() {
    let pod = Pod::start().await;
    pod.all_up();
    pod.readiness.note_full(true, true);
    let answer = pod.get("/ready", "").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    assert_eq!((&answer.json()["status"], &answer.json()["full"]), (&json!("NOT_READY"), &json!(true)));
    pod.readiness.note_full(true, false);
    let answer = pod.get("/ready", "").await;
    assert_eq!((answer.status, &answer.json()["status"], &answer.json()["full"]), (200, &json!("READY"), &json!(true)));
}

#[tokio::test]
async fn browsers_may_read_how_long_to_stay_away() {
    let pod = Pod::start().await;
    for path in ["/ready", "/ws/ready"] {
        let answer = pod.get(path, "Origin: https://desk.example\r\n").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("retry-after"));
    }
    pod.all_up();
    for path in ["/ready", "/ws/ready"] {
        let answer = pod.get(path, "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (200, None), "{path}");
    }
}

#[tokio::test]
async fn what_is_among_the_sockets_says_nothing_of_the_pod() {
    let pod = Pod::start().await;
    let answer = pod.get("/ws/ready", "").await;
    assert_eq!((answer.status, answer.body.as_str(), answer.header("content-type")), (503, "", None));
}

#[tokio::test]
async fn the_client_is_served_only_where_it_is_asked_for() {
    Pod::start().await.get("/client.js", "").await.assert_error(404, "BadRequest");
}

#[tokio::test]
async fn metrics_are_in_the_text_format() {
    let pod = Pod::start().await;
    pod.get("/ws/admin", "").await;
    let answer = pod.get("/metrics", "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    assert!(answer.body.contains("dws_connections_refused_total{code=\"InvalidAPIKey\",type=\"admin\"} 1"), "{}", answer.body);
}
