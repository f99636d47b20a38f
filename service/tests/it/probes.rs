//! A whole pod in this process: its port for probes, and what a session in a loop is told.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
    time::Duration,
};

use daisi_ws_service::{
    adapters::memory::{
        store::Store,
        stream::{Stream, StreamOptions},
    },
    config::{Config, ConfigWatch},
    gateway::{BackendChoice, Gateway, StoreChoice, StreamChoice},
    metrics::Metrics,
    runtime::{
        lifecycle::{Shutdown, Tasks},
        workers::{PodWorkers, Worker},
    },
};
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    fixture::{self, API_KEY, user_token},
    http::{UPGRADE, get},
};

struct Pod {
    http: SocketAddr,
    probe: SocketAddr,
    shutdown: Shutdown,
    running: Tasks,
    /// Ends last, as in `serve`.
    workers: PodWorkers,
}

async fn pod(change: impl FnOnce(&mut Config)) -> Pod {
    let mut config = fixture::config();
    config.server.probe_port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    config.server.pod_id = "pod-1".into();
    change(&mut config);
    let metrics = Arc::new(Metrics::new().unwrap());
    let watch = ConfigWatch::fixed(config, Arc::clone(&metrics));
    let stream = Stream::new(StreamOptions::default());
    let backends = BackendChoice { store: StoreChoice::Memory(Store::new()), stream: StreamChoice::Memory(stream) };
    let shutdown = Shutdown::default();
    let gateway = Box::pin(Gateway::bind(&watch, backends, shutdown.clone(), &metrics, None)).await.unwrap();
    let (http, probe) = (gateway.http_addr(), gateway.probe_addr().unwrap());
    let running = Tasks::new(Shutdown::default(), metrics, tracing::Span::none());
    let workers = PodWorkers::start().unwrap();
    let teams = workers.teams();
    running.spawn("gateway", async move { gateway.run(teams).await.unwrap() });
    while get(probe, "/ready", "").await.status != 200 {
        tokio::task::yield_now().await;
    }
    Pod { http, probe, shutdown, running, workers }
}

/// The head of the answer to a connect; the socket stays open with the stream.
async fn connect(pod: &Pod, user: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(pod.http).await.unwrap();
    let token = user_token("acme", "a1", user);
    let request = format!("GET /ws/acme/a1?token={token} HTTP/1.1\r\nHost: test\r\nX-API-Key: {API_KEY}\r\n{UPGRADE}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0; 2048];
    let read = stream.read(&mut head).await.unwrap();
    (String::from_utf8_lossy(&head[..read]).to_ascii_lowercase(), stream)
}

#[tokio::test]
async fn one_session_in_a_loop_is_told_to_wait_and_others_are_not() {
    let pod = pod(|config| config.limits.connects_per_session_burst = 3).await;
    for _ in 0..3 {
        assert!(connect(&pod, "sari").await.0.starts_with("http/1.1 101"));
    }
    for _ in 0..20 {
        let (head, _) = connect(&pod, "sari").await;
        assert!(head.starts_with("http/1.1 429") && head.contains("\r\nretry-after: 1\r\n"), "{head}");
    }
    assert!(connect(&pod, "joko").await.0.starts_with("http/1.1 101"));
    let metrics = get(pod.probe, "/metrics", "").await.body;
    assert!(metrics.contains("dws_rate_limited_total{limit=\"session\"} 20\n"), "{metrics}");
    pod.shutdown.soft.cancel();
    pod.running.ended().await;
}

#[tokio::test]
async fn probes_are_answered_until_a_drain_is_over() {
    let pod = pod(|_| {}).await;
    let (head, mut socket) = connect(&pod, "sari").await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    pod.shutdown.soft.cancel();
    while get(pod.probe, "/ready", "").await.status != 503 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(pod.probe, "/health", "").await.status, 200);
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    drop(socket);
    pod.running.ended().await;
}

/// Has a worker do nothing until what this returns is dropped.
fn hold(worker: &Arc<Worker>) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (holds, held) = mpsc::channel();
    worker.spawn(async move {
        holds.send(()).unwrap();
        let _ = released.recv();
    });
    held.recv().unwrap();
    release
}

#[tokio::test]
async fn a_probe_is_answered_while_nothing_else_of_the_pod_runs() {
    let pod = pod(|_| {}).await;
    // This blocks the thread that all of the pod runs on, but for its sockets, whose threads are held up too.
    let held: Vec<_> = pod.workers.teams().sockets.iter().map(hold).collect();
    for path in ["/health", "/ready", "/metrics"] {
        let mut stream = std::net::TcpStream::connect(pod.probe).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 200", "{path}");
    }
    drop(held);
    pod.shutdown.soft.cancel();
    pod.running.ended().await;
}
