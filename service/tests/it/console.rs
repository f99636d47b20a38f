//! The dev fleet's console and its control calls, over HTTP. In a browser they are driven by `service/web/test/browser.py`.

use std::net::SocketAddr;

use daisi_ws_service::dev::{Fleet, Plan};
use serde_json::{Value, json};

use crate::support::{
    config::test_config,
    http::{Answer, send},
    wait,
};

const PAGE: &str = include_str!("../../src/dev/console/index.html");

/// A dev fleet on free ports that runs beside the test.
struct Dev {
    pods: Vec<SocketAddr>,
    fleet: Fleet,
}

impl Dev {
    async fn start(pods: u16) -> Self {
        let plan = Plan { pods, nats: None, redis: None, base_port: 0 };
        let fleet = Box::pin(Fleet::start(&plan, &test_config())).await.unwrap();
        Self { pods: fleet.addresses().into_iter().map(|(_, address)| address).collect(), fleet }
    }

    async fn ask(&self, method: &str, pod: usize, target: &str, head: &str, body: &str) -> Answer {
        let (address, length) = (self.pods[pod], body.len());
        let host = if head.contains("Host: ") { String::new() } else { format!("Host: {address}\r\n") };
        let request =
            format!("{method} {target} HTTP/1.1\r\n{host}Content-Length: {length}\r\nConnection: close\r\n{head}\r\n{body}");
        send(address, request.as_bytes()).await
    }

    async fn get(&self, pod: usize, target: &str) -> Answer {
        self.ask("GET", pod, target, "", "").await
    }

    async fn post(&self, pod: usize, target: &str) -> Answer {
        self.ask("POST", pod, target, "", "").await
    }

    async fn pod(&self, through: usize, index: usize) -> Value {
        self.get(through, "/dev/status").await.json()["pods"][index].clone()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.fleet.shutdown().hard.cancel();
    }
}

#[tokio::test]
async fn every_file_that_the_page_names_is_served_with_a_policy_that_runs_nothing_else() {
    let dev = Dev::start(1).await;
    let mut names: Vec<&str> = PAGE.split('"').filter(|text| text.starts_with("/console/")).collect();
    names.extend(["/", "/console/api.js", "/console/charts.js", "/console/dom.js", "/console/events.js", "/console/sockets.js"]);
    for name in names {
        let answer = dev.get(0, name).await;
        assert_eq!(answer.status, 200, "{name}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    }
    let client = dev.get(0, "/client.js").await;
    assert_eq!((client.status, client.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
}

#[tokio::test]
async fn pages_of_others_and_foreign_names_for_this_machine_are_kept_out() {
    let dev = Dev::start(2).await;
    for head in
        ["Origin: https://evil.example\r\n", "Origin: http://127.0.0.1:1\r\n", "Origin: null\r\n", "Host: evil.example:80\r\n"]
    {
        for (method, target) in [("GET", "/dev/status"), ("POST", "/dev/store/flush"), ("POST", "/dev/publish/wa.a.b.chats")] {
            dev.ask(method, 0, target, head, "{}").await.assert_error(403, "InvalidToken");
        }
    }
    // The page of one pod asks another one.
    let origin = format!("http://{}", dev.pods[1]);
    let answer = dev.ask("GET", 0, "/dev/status", &format!("Origin: {origin}\r\n"), "").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(origin.as_str())));
}

#[tokio::test]
async fn a_pod_keeps_its_place_while_it_is_killed_started_and_drained() {
    let dev = Dev::start(2).await;
    assert_eq!(dev.post(0, "/dev/pods/dev-2/kill").await.status, 200);
    assert_eq!(dev.pod(0, 1).await["phase"], "stopped");
    dev.post(0, "/dev/pods/dev-2/kill").await.assert_error(409, "BadRequest");
    assert_eq!(dev.post(0, "/dev/pods/dev-2/start").await.status, 200);
    wait::until("it is ready at its old address", || async { dev.pod(1, 1).await["ready"] == true }).await;
    assert_eq!(dev.pod(0, 1).await["address"], dev.pods[1].to_string());
    assert_eq!(dev.post(0, "/dev/pods/dev-2/drain").await.status, 200);
    wait::until("it has drained", || async { dev.pod(0, 1).await["phase"] == "stopped" }).await;
}

#[tokio::test]
async fn a_killed_pod_has_no_sockets_and_not_less_than_none() {
    let dev = Dev::start(2).await;
    let none = "\"sockets\":0.0,";
    assert!(dev.get(0, "/dev/status").await.body.contains(none));
    let wish = json!({ "company_id": "acme", "agent_id": "a1", "user_id": "sari", "expires_in_seconds": 60 }).to_string();
    let token = dev.ask("POST", 0, "/dev/tokens/user", "", &wish).await.json()["token"].as_str().unwrap().to_owned();
    let key = test_config().auth.secret_token;
    let url = format!("ws://{}/ws/acme/a1?token={token}&x-api-key={}", dev.pods[1], key.expose());
    let stream = tokio::net::TcpStream::connect(dev.pods[1]).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    wait::until("it counts", || async { dev.pod(0, 1).await["sockets"] == 1.0 }).await;
    assert_eq!(dev.post(0, "/dev/pods/dev-2/kill").await.status, 200);
    wait::until("the socket is gone", || {
        let gone = futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut socket));
        std::future::ready(gone.is_some_and(|frame| !matches!(frame, Some(Ok(_)))))
    })
    .await;
    let status = dev.get(0, "/dev/status").await.body;
    assert_eq!(status.matches(none).count(), 2, "{status}");
}

#[tokio::test]
async fn a_frozen_pod_is_cut_off_until_it_is_thawed() {
    let dev = Dev::start(2).await;
    assert_eq!(dev.post(0, "/dev/pods/dev-2/freeze").await.status, 200);
    wait::until("the other misses it", || async { dev.pod(0, 0).await["peers"] == 0.0 }).await;
    assert_eq!(dev.post(0, "/dev/pods/dev-2/thaw").await.status, 200);
    wait::until("it is back", || async { dev.pod(1, 0).await["peers"] == 1.0 }).await;
}

#[tokio::test]
async fn backends_go_and_come_and_the_status_says_who_took_an_event() {
    let dev = Dev::start(1).await;
    for (backend, publishes) in [("store", 200), ("stream", 503)] {
        assert_eq!(dev.post(0, &format!("/dev/{backend}/down")).await.status, 200);
        assert_eq!(dev.get(0, "/dev/status").await.json()[backend]["down"], true);
        assert_eq!(dev.ask("POST", 0, "/dev/publish/wa.acme.a1.chats", "", "{}").await.status, publishes);
        assert_eq!(dev.post(0, &format!("/dev/{backend}/up")).await.status, 200);
    }
    let seq = dev.ask("POST", 0, "/dev/publish/wa.acme.a1.chats", "", "{}").await.json()["seq"].clone();
    let taken = || async {
        let takes = dev.get(0, "/dev/status?after=1").await.json()["takes"].clone();
        takes.as_array().unwrap().iter().any(|take| take["seq"] == seq && take["pod"] == "dev-1")
    };
    wait::until("it is taken", taken).await;
    dev.post(0, "/dev/store/explode").await.assert_error(404, "BadRequest");
    dev.post(0, "/dev/pods/dev-9/kill").await.assert_error(404, "BadRequest");
}

#[tokio::test]
async fn tokens_are_made_for_anybody_and_a_bad_wish_is_explained() {
    let dev = Dev::start(1).await;
    let wish = json!({ "company_id": "acme", "agent_id": "a1", "user_id": "sari", "expires_in_seconds": 60 }).to_string();
    assert!(dev.ask("POST", 0, "/dev/tokens/user", "", &wish).await.json()["token"].is_string());
    let wish = json!({ "admin_id": "root", "expires_in_seconds": 60 }).to_string();
    assert!(dev.ask("POST", 0, "/dev/tokens/admin", "", &wish).await.json()["token"].is_string());
    for bad in ["", "{}", r#"{"admin_id":"a b","expires_in_seconds":60}"#] {
        dev.ask("POST", 0, "/dev/tokens/admin", "", bad).await.assert_error(400, "BadRequest");
    }
}
