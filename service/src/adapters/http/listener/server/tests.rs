use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
};

use super::{super::intake::GRACE, *};
use crate::{adapters::http::listener::deferred_upgrade::DeferredUpgrade, config::ProxyProtocol, runtime::workers::Workers};

#[test]
fn want_of_file_descriptors_is_ours_and_a_client_that_left_is_not() {
    const EMFILE: i32 = 24;
    assert!(!is_the_peers(&io::Error::from_raw_os_error(EMFILE)));
    assert!(is_the_peers(&io::Error::from(io::ErrorKind::ConnectionAborted)));
}

/// An answer of which the system keeps less than a half for a client that does not read.
const LONG: usize = 48 << 20;

/// A pod on such workers, and what tells it to stop.
async fn pod(workers: &Workers, app: Router, intake: Intake) -> (SocketAddr, Tasks, CancellationToken) {
    let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
    let tasks = Tasks::new(crate::runtime::lifecycle::Shutdown::default(), metrics, tracing::Span::none());
    let (server, stop) = (HttpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap(), CancellationToken::new());
    let address = server.local_addr();
    server.serve(app, intake, &tasks, workers.team(), stop.clone());
    (address, tasks, stop)
}

/// One that has room for so many pending connections.
async fn narrow_pod(workers: &Workers, app: Router) -> (SocketAddr, Tasks, CancellationToken) {
    pod(workers, app, Intake::AtMost(4)).await
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    read(stream).await
}

async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 1024];
    let read = stream.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Does the connection end without a word?
async fn is_ended(stream: &mut TcpStream) -> bool {
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await;
    matches!(ended, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn who_asks_is_served_however_many_say_nothing() {
    let workers = Workers::start(2).unwrap();
    let (address, ..) = narrow_pod(&workers, Router::new()).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(connect(address).await);
        assert!(ask(&mut connect(address).await).await.starts_with("HTTP/1.1 404"));
    }
    let (last, first) = silent.split_last_mut().unwrap();
    for stream in &mut first[..30] {
        assert!(is_ended(stream).await);
    }
    assert!(ask(last).await.starts_with("HTTP/1.1 404"), "the youngest of the silent is still there");
}

#[tokio::test]
async fn who_sends_the_next_request_before_the_answer_is_ended_with_a_word() {
    let workers = Workers::start(2).unwrap();
    let (served, app) = (Arc::new(Semaphore::new(0)), Router::new());
    let count = Arc::clone(&served);
    let (address, ..) = narrow_pod(&workers, app.route("/", axum::routing::get(async move || count.add_permits(1)))).await;
    let mut stream = connect(address).await;
    stream.write_all("GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100).as_bytes()).await.unwrap();
    let mut answers = String::new();
    let _ = stream.read_to_string(&mut answers).await;
    assert!(answers.starts_with("HTTP/1.1 200") && answers.matches("HTTP/1.1").count() == 2, "{answers}");
    assert!(answers.contains("HTTP/1.1 400") && answers.contains("connection: close"), "{answers}");
    assert_eq!(served.available_permits(), 1);
    // One after the other is what the connection is for.
    let mut stream = connect(address).await;
    for _ in 0..100 {
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn who_does_not_read_its_answer_leaves_for_who_asks() {
    let workers = Workers::start(2).unwrap();
    let long = axum::routing::get(async || "x".repeat(LONG));
    let (address, ..) = narrow_pod(&workers, Router::new().route("/long", long)).await;
    let mut deaf = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(address).await;
        stream.write_all(b"GET /long HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        assert!(read(&mut stream).await.starts_with("HTTP/1.1 200"));
        deaf.push(stream);
        assert!(ask(&mut connect(address).await).await.starts_with("HTTP/1.1 404"));
    }
    let mut rest = Vec::new();
    let _ = deaf[0].read_to_end(&mut rest).await;
    assert!(rest.len() < LONG / 2, "the answer was broken off");
}

#[tokio::test]
async fn who_waits_for_us_is_not_asked_to_leave() {
    let workers = Workers::start(2).unwrap();
    let (go, gone) = (Arc::new(tokio::sync::Notify::new()), Arc::new(Semaphore::new(0)));
    let (wait, begun) = (Arc::clone(&go), Arc::clone(&gone));
    let hang = axum::routing::get(async move |request: axum::extract::Request| {
        let _held = request.extensions().get::<Arc<Place>>().unwrap().hold();
        begun.add_permits(1);
        wait.notified().await;
        "at last"
    });
    let (address, ..) = narrow_pod(&workers, Router::new().route("/", hang)).await;
    let mut patient = connect(address).await;
    patient.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    gone.acquire().await.unwrap().forget();
    let mut others = Vec::new();
    for _ in 0..20 {
        let mut other = connect(address).await;
        other.write_all(b"GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        assert!(read(&mut other).await.starts_with("HTTP/1.1 404"));
        others.push(other);
    }
    go.notify_one();
    assert!(read(&mut patient).await.ends_with("at last"));
}

#[tokio::test(start_paused = true)]
async fn one_address_has_its_share_and_a_trusted_proxy_speaks_for_others() {
    let workers = Workers::of_the_runtime();
    let mut config = crate::config::testing::config();
    config.limits.pending_connections_per_address = 2;
    let (sender, config) = watch::channel(Arc::new(config));
    let (address, tasks, _stop) = pod(&workers, Router::new(), Intake::Browsers(config)).await;
    let mut silent = vec![connect(address).await, connect(address).await, connect(address).await];
    assert!(ask(&mut silent[0]).await.starts_with("HTTP/1.1 404"), "they have just come");
    sleep(GRACE).await;
    silent.push(connect(address).await);
    assert!(is_ended(&mut silent[1]).await);
    assert!(ask(&mut silent[3]).await.starts_with("HTTP/1.1 404"));
    let ended = |reason: &str| tasks.metrics().http_pending_ended_total.with_label_values(&["http", reason]).get();
    assert_eq!((ended("share"), ended("full")), (2, 0));
    sender.send_modify(|config| {
        Arc::make_mut(config).server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let mut more = Vec::new();
    for _ in 0..20 {
        more.push(connect(address).await);
    }
    sleep(GRACE).await;
    more.push(connect(address).await);
    for stream in &mut more {
        assert!(ask(stream).await.starts_with("HTTP/1.1 404"));
    }
    assert_eq!(ended("share"), 2);
}

#[tokio::test]
async fn a_trusted_proxy_has_to_say_for_whom_it_speaks_where_that_is_required() {
    let workers = Workers::start(2).unwrap();
    let tell = async |request: axum::extract::Request| request.extensions().get::<Peer>().unwrap().0.to_string();
    let served = async |trusted: &str, bytes: &str| {
        let mut config = crate::config::testing::config();
        config.server.trusted_proxies = vec![trusted.parse().unwrap()];
        config.server.proxy_protocol = ProxyProtocol::Required;
        let (_keep, config) = watch::channel(Arc::new(config));
        let (address, ..) = pod(&workers, Router::new().route("/", axum::routing::get(tell)), Intake::Browsers(config)).await;
        let mut stream = connect(address).await;
        let request = format!("{bytes}GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
    };
    const HEADER: &str = "PROXY TCP4 203.0.113.7 127.0.0.1 4711 8080\r\n";
    assert_eq!(served("127.0.0.1", HEADER).await, "203.0.113.7");
    assert_eq!(served("127.0.0.1", "PROXY UNKNOWN\r\n").await, "127.0.0.1");
    assert_eq!(served("127.0.0.1", "").await, "", "a trusted proxy without it is not answered");
    assert_eq!(served("10.0.0.1", "").await, "127.0.0.1", "others come as they are");
    assert!(served("10.0.0.1", HEADER).await.contains("BadRequest"), "and can't choose an address");
}

#[tokio::test]
async fn a_connection_that_becomes_something_else_makes_room() {
    let workers = Workers::start(2).unwrap();
    let upgrade = async |request: axum::extract::Request| {
        DeferredUpgrade::of(&request)
            .unwrap()
            .hand_to(|upgraded| assert!(upgraded.stream.try_write(&upgraded.answer).unwrap() > 0));
        let headers = [("connection", "upgrade"), ("upgrade", "test")];
        (axum::http::StatusCode::SWITCHING_PROTOCOLS, headers)
    };
    let (address, tasks, _stop) = narrow_pod(&workers, Router::new().route("/", axum::routing::get(upgrade))).await;
    for _ in 0..9 {
        let mut stream = connect(address).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n").await.unwrap();
        let mut bytes = [0; 12];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"HTTP/1.1 101");
    }
    assert_eq!(tasks.metrics().http_pending_ended_total.with_label_values(&["probe", "full"]).get(), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_keeps_little_for_a_client_beside_what_is_on_its_way() {
    let workers = Workers::start(2).unwrap();
    let (seen, mut unsent) = tokio::sync::mpsc::channel(1);
    let upgrade = async move |request: axum::extract::Request| {
        DeferredUpgrade::of(&request).unwrap().hand_to(move |upgraded| {
            seen.try_send(socket2::SockRef::from(&upgraded.stream).tcp_notsent_lowat().unwrap()).unwrap();
        });
        (axum::http::StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "test")])
    };
    let (address, ..) = narrow_pod(&workers, Router::new().route("/", axum::routing::get(upgrade))).await;
    let mut stream = connect(address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n").await.unwrap();
    assert_eq!(unsent.recv().await, Some(UNSENT_BYTES));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_for_nothing_is_ended() {
    let workers = Workers::of_the_runtime();
    for begun in ["", "GET / HTT", "GET / HTTP/1.1\r\nHost: test\r\n"] {
        let (address, ..) = narrow_pod(&workers, Router::new()).await;
        let mut stream = connect(address).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{begun}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_ends_the_connection() {
    let workers = Workers::of_the_runtime();
    let long = axum::routing::get(async || "x".repeat(LONG));
    let (address, tasks, _stop) = narrow_pod(&workers, Router::new().route("/", long)).await;
    let mut stream = connect(address).await;
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    let began = tokio::time::Instant::now();
    // The listener, and nothing else.
    while tasks.running() > 1 {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < LONG / 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_ended_between_requests() {
    let workers = Workers::of_the_runtime();
    let (address, ..) = narrow_pod(&workers, Router::new()).await;
    let mut stream = connect(address).await;
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 404"));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_does_not_keep_the_server_from_stopping() {
    let workers = Workers::of_the_runtime();
    let (started, mut begun) = tokio::sync::mpsc::channel(1);
    let hang = async move || {
        let _ = started.send(()).await;
        std::future::pending::<()>().await;
    };
    let (address, tasks, stop) = narrow_pod(&workers, Router::new().route("/", axum::routing::get(hang))).await;
    let mut stream = connect(address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    begun.recv().await.unwrap();
    stop.cancel();
    tasks.ended().await;
}
