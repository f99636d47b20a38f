//! What strangers can't do: guess for long, say one thing to a proxy and another to the pod, and hold up a probe.

use super::*;

async fn pod(change: impl FnOnce(&mut Config)) -> Pod {
    let pod = Pod::start().await;
    let mut config = fixture::config();
    change(&mut config);
    pod.config.send_replace(Arc::new(config));
    pod
}

#[track_caller]
fn assert_slowed(answer: &Answer) {
    answer.assert_error(429, "RateLimitExceeded");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{answer:?}");
}

#[tokio::test]
async fn who_guesses_the_minting_key_is_not_even_compared_after_some_failures() {
    let pod = pod(|config| config.limits.failures_per_address_burst = 5).await;
    let guess = async |key: &str| pod.post("/generate-token", &format!("X-API-Key: {key}\r\n"), "{}").await;
    for attempt in 0..5 {
        guess(&format!("guess-{attempt}")).await.assert_error(401, "InvalidAPIKey");
    }
    assert_slowed(&guess("guess-5").await);
    assert_slowed(&guess(MINT_KEY).await);
    assert_slowed(&pod.post("/admin/generate-token", "", "{}").await);
    assert_eq!(pod.metrics.rate_limited_total.with_label_values(&["failed_mints"]).get(), 3);
    // The doors of sockets count by themselves.
    assert_passed(&pod.knock(&format!("/ws/acme/a1?token={}", user_token("acme", "a1", "sari"))).await);
}

#[tokio::test]
async fn who_guesses_at_a_door_learns_nothing_more_and_a_neighbour_who_is_right_comes_in() {
    let pod = pod(|config| config.limits.failures_per_address_burst = 5).await;
    let door = async |key: &str, token: &str| {
        pod.get(&format!("/ws/acme/a1?token={token}"), &format!("X-API-Key: {key}\r\n{UPGRADE}")).await
    };
    for attempt in 0..5 {
        door(&format!("guess-{attempt}"), "none").await.assert_error(401, "InvalidAPIKey");
    }
    let token = user_token("acme", "a1", "sari");
    assert_slowed(&door("guess-6", "none").await);
    assert_slowed(&door("guess-7", &token).await);
    assert_slowed(&door(API_KEY, "none").await);
    // The right key without a handshake tells nothing either.
    assert_slowed(&pod.get(&format!("/ws/acme/a1?token={token}"), &format!("X-API-Key: {API_KEY}\r\n")).await);
    assert_passed(&door(API_KEY, &token).await);
}

#[tokio::test]
async fn a_header_that_may_be_there_once_is_refused_twice() {
    let pod = Pod::start().await;
    for head in ["Host: other.example\r\n", "Origin: https://a.example\r\nOrigin: https://a.example\r\n"] {
        for target in ["/health", "/ws/admin"] {
            pod.get(target, head).await.assert_error(400, "BadRequest");
        }
    }
    let answer = send(pod.address, b"GET /health HTTP/1.1\r\n\r\n").await;
    answer.assert_error(400, "BadRequest");
}

#[tokio::test]
async fn the_port_for_probes_answers_probes_alone() {
    let pod = Pod::start().await;
    pod.all_up();
    for target in ["/health", "/ready", "/metrics"] {
        assert_eq!(get(pod.probe, target, "").await.status, 200, "{target}");
    }
    let token = user_token("acme", "a1", "sari");
    for target in ["/", "/console", "/client.js", "/ws/admin", &format!("/ws/acme/a1?token={token}")] {
        let head = format!("X-API-Key: {API_KEY}\r\n{UPGRADE}");
        get(pod.probe, target, &head).await.assert_error(404, "BadRequest");
    }
    post(pod.probe, "/generate-token", &format!("X-API-Key: {MINT_KEY}\r\n"), "{}").await.assert_error(404, "BadRequest");
    pod.tasks.shutdown().soft.cancel();
    assert_eq!((get(pod.probe, "/health", "").await.status, get(pod.probe, "/ready", "").await.status), (200, 503));
}

#[tokio::test]
async fn probes_are_answered_on_both_ports_whatever_strangers_hold() {
    let pod = Pod::start().await;
    let mut strangers = Vec::new();
    for number in 0..1200 {
        let mut stranger = TcpStream::connect(pod.address).await.unwrap();
        if number % 2 == 0 {
            // Far more than it will ever read the answers to.
            let _ = stranger.write_all("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(200).as_bytes()).await;
        }
        strangers.push(stranger);
    }
    for port in [pod.address, pod.probe] {
        for target in ["/health", "/metrics"] {
            let answer = timeout(Duration::from_secs(5), get(port, target, "")).await.expect("no answer in time");
            assert_eq!(answer.status, 200, "{target}");
        }
    }
}
