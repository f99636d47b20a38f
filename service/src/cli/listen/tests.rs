use std::sync::Mutex;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::{
    dial::Socket,
    line::{ANSWER, FINAL, QUIET, SLOWER, closed},
    *,
};
use crate::config::testing;

/// What a gateway was asked for: path with query, and the secrets in headers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    target: String,
    key: String,
    token: String,
}

/// A gateway that the test plays.
struct Gateway {
    listener: TcpListener,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Gateway {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), asked: Arc::default() }
    }

    fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.listener.local_addr().unwrap())
    }

    /// The next socket, after these frames were sent.
    #[expect(clippy::result_large_err, reason = "the callback is tungstenite's")]
    async fn serve(&self, frames: &[&str]) -> WebSocketStream<TcpStream> {
        let (stream, _) = self.listener.accept().await.unwrap();
        let asked = Arc::clone(&self.asked);
        let header = |request: &Request, name| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let note = |request: &Request, mut response: Response| {
            let target = request.uri().to_string();
            asked.lock().unwrap().push(Asked {
                target,
                key: header(request, "x-api-key"),
                token: header(request, "authorization"),
            });
            response.headers_mut().insert("sec-websocket-protocol", "json.v1".parse().unwrap());
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, note).await.unwrap();
        for frame in frames {
            socket.send(Message::text(*frame)).await.unwrap();
        }
        socket
    }

    async fn closes(&self, frames: &[&str], code: u16) {
        let mut socket = self.serve(frames).await;
        let _ = socket.close(Some(CloseFrame { code: CloseCode::from(code), reason: "why".into() })).await;
        while let Some(Ok(_)) = socket.next().await {}
    }

    fn targets(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.target.clone()).collect()
    }
}

fn args(arguments: &[&str]) -> Args {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    <Line as clap::Parser>::parse_from(std::iter::once("listen").chain(arguments.iter().copied())).args
}

/// What was printed, and how it ended.
async fn listened(arguments: &[&str], input: &str, stop: impl Future<Output = ()>) -> (Vec<String>, Result<(), String>) {
    let sources = Sources::new(None, testing::environment(testing::SECRETS));
    let (mut out, mut stop) = (Vec::new(), Box::pin(stop));
    let ended = listen(args(arguments), &sources, input.as_bytes(), &mut out, stop.as_mut()).await;
    let lines = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
    (lines, ended.map_err(|error| error.report()))
}

const READY: &str = r#"{"type":"ready","payload":{"pod_id":"p1","stream":"s1","safe":40}}"#;
const RESUMED: &str = r#"{"type":"ready","payload":{"pod_id":"p2","stream":"s1","safe":41,"resumed":true,"replayed":2}}"#;

#[tokio::test]
async fn it_goes_on_where_it_was_and_prints_every_frame_once_on_a_line_of_its_own() {
    let gateway = Gateway::start().await;
    let (over, stop) = tokio::sync::oneshot::channel::<()>();
    let pretty = "{\"type\":\"event\",\"seq\":43,\"safe\":41,\"payload\":{\n  \"id\": 9007199254740993\r\n}}";
    let again = [
        r#"{"type":"event","seq":43,"safe":43,"replayed":true,"payload":{}}"#,
        r#"{"type":"event","seq":44,"safe":44,"replayed":true,"payload":{}}"#,
    ];
    let served = async {
        gateway.closes(&[READY, pretty], 1001).await;
        gateway.closes(&[RESUMED, again[0], again[1]], 1013).await;
        gateway.serve(&[]).await;
    };
    let url = gateway.url("/ws/acme/agent-7?trace=1");
    let line = ["--url", &url, "--token-file", "-", "--chat", "c1", "--resume", "s1:38"];
    let listen = listened(&line, "the-token\n", async { drop(stop.await) });
    let ((lines, ended), ()) = tokio::join!(listen, async {
        served.await;
        drop(over);
    });
    assert_eq!(ended, Ok(()));
    let flat = r#"{"type":"event","seq":43,"safe":41,"payload":{   "id": 9007199254740993  }}"#;
    assert_eq!(lines, [READY, flat, RESUMED, again[1]]);
    let query = |cursor| format!("/ws/acme/agent-7?trace=1&chat=c1&resume=s1%3A{cursor}&move=1");
    assert_eq!(gateway.targets(), [query(38), query(41), query(44)]);
    let asked = gateway.asked.lock().unwrap();
    assert!(
        asked.iter().all(|asked| asked.token == "Bearer the-token" && asked.key == testing::config().auth.secret_token.expose())
    );
}

const MOVE: &str = r#"{"type":"move","payload":{"within_ms":15000,"reason":"drain"}}"#;

#[tokio::test]
async fn asked_to_move_it_reads_on_until_the_second_socket_is_there_and_prints_every_event_once() {
    let gateway = Gateway::start().await;
    let (over, stop) = tokio::sync::oneshot::channel::<()>();
    let event = |seq: u64, safe: u64| format!(r#"{{"type":"event","seq":{seq},"safe":{safe},"payload":{{}}}}"#);
    let [e42, e43, e44, e45, e46] = [42, 43, 44, 45, 46].map(|seq| event(seq, seq - 1));
    let served = async {
        let mut first = gateway.serve(&[READY, &e42, MOVE]).await;
        // A pod that goes as well.
        drop(gateway.listener.accept().await.unwrap());
        first.send(Message::text(&e43)).await.unwrap();
        let mut second = gateway.serve(&[RESUMED, &e43, &e44]).await;
        first.send(Message::text(&e44)).await.unwrap();
        first.send(Message::text(&e45)).await.unwrap();
        first.close(Some(CloseFrame { code: CloseCode::from(1001), reason: "moved".into() })).await.unwrap();
        while let Some(Ok(_)) = first.next().await {}
        second.send(Message::text(&e45)).await.unwrap();
        second.send(Message::text(&e46)).await.unwrap();
        let closing = Some(CloseFrame { code: CloseCode::from(1001), reason: "going-away".into() });
        second.close(closing).await.unwrap();
        while let Some(Ok(_)) = second.next().await {}
        gateway.serve(&[]).await;
    };
    let url = gateway.url("/ws/admin?x-api-key=k&token=t");
    let line = ["--url", &url];
    let listen = listened(&line, "", async { drop(stop.await) });
    let ((lines, ended), ()) = tokio::join!(listen, async {
        served.await;
        drop(over);
    });
    assert_eq!(ended, Ok(()));
    // Which of two sockets is read first is left to chance, but not the order of events that both bring.
    let (readies, events): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.contains("ready"));
    assert_eq!((readies, events), (vec![READY.to_owned(), RESUMED.to_owned()], vec![e42, e43, e44, e45, e46]));
    let targets = gateway.targets();
    assert_eq!(targets[0], "/ws/admin?x-api-key=k&token=t&move=1");
    assert!(targets[1].contains("resume=s1%3A4") && targets[1].ends_with("&move=1"), "{targets:?}");
    assert_eq!(targets.len(), 3, "the one that was refused had no upgrade: {targets:?}");
}

#[tokio::test]
async fn a_first_socket_that_ends_before_the_second_is_ready_is_no_end() {
    for code in [1001, 4402] {
        let gateway = Gateway::start().await;
        let (over, stop) = tokio::sync::oneshot::channel::<()>();
        let served = async {
            let mut first = gateway.serve(&[READY, MOVE]).await;
            let mut second = gateway.serve(&[]).await;
            first.close(Some(CloseFrame { code: CloseCode::from(code), reason: "why".into() })).await.unwrap();
            while let Some(Ok(_)) = first.next().await {}
            second.send(Message::text(RESUMED)).await.unwrap();
            second.close(Some(CloseFrame { code: CloseCode::from(1001), reason: "why".into() })).await.unwrap();
            while let Some(Ok(_)) = second.next().await {}
            gateway.serve(&[]).await;
        };
        let url = gateway.url("/ws/admin?x-api-key=k&token=t");
        let line = ["--url", &url];
        let listen = listened(&line, "", async { drop(stop.await) });
        let ((lines, ended), ()) = tokio::join!(listen, async {
            served.await;
            drop(over);
        });
        assert_eq!((lines, ended), (vec![READY.to_owned(), RESUMED.to_owned()], Ok(())), "{code}");
    }
}

#[tokio::test]
async fn a_close_that_would_come_again_is_the_end() {
    for code in FINAL {
        let gateway = Gateway::start().await;
        let url = gateway.url("/ws/admin?x-api-key=k&token=t");
        let line = ["--url", &url];
        let ((lines, ended), ()) = tokio::join!(listened(&line, "", std::future::pending()), gateway.closes(&[READY], code));
        assert_eq!(lines, [READY]);
        assert_eq!(ended.unwrap_err(), format!("error: {}: closed with {code} why", gateway.url("/ws/admin")));
        assert_eq!(gateway.targets(), ["/ws/admin?x-api-key=k&token=t&move=1"]);
        let asked = gateway.asked.lock().unwrap();
        assert_eq!((asked[0].key.as_str(), asked[0].token.as_str()), ("", ""), "those of the address are enough");
    }
}

#[tokio::test]
async fn a_listener_whose_output_nobody_reads_any_more_ends() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let gateway = Gateway::start().await;
    let url = gateway.url("/ws/admin");
    let sources = Sources::new(None, testing::environment(testing::SECRETS));
    let (mut out, mut never) = (Closed, Box::pin(std::future::pending()));
    let listening = listen(args(&["--url", &url, "--admin", "root"]), &sources, io::empty(), &mut out, never.as_mut());
    let (ended, _socket) = tokio::join!(listening, gateway.serve(&[READY]));
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn the_token_comes_from_the_configured_key_a_file_or_standard_input() {
    let sources = Sources::new(None, testing::environment(testing::SECRETS));
    let tokens = |line: &[&str], input: &str| Tokens::new(&args(line), input.as_bytes()).and_then(|tokens| tokens.next(&sources));
    let exposed = |line: &[&str], input: &str| tokens(line, input).unwrap().unwrap().expose().to_owned();
    let (user, admin) = ("ws://h/ws/acme/agent-7", "ws://h/ws/admin");
    assert!(exposed(&["--url", user, "--user", "sari"], "").len() > 80);
    assert!(exposed(&["--url", admin, "--admin", "root"], "").len() > 80);
    assert_eq!(exposed(&["--url", user, "--token-file", "-"], " t \n"), "t");
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    let from_file = Tokens::new(&args(&["--url", user, "--token-file", path]), io::empty()).unwrap();
    for token in ["first", "second"] {
        std::fs::write(file.path(), token).unwrap();
        assert_eq!(from_file.next(&sources).unwrap().unwrap().expose(), token, "read anew at every attempt");
    }
    assert!(tokens(&["--url", "ws://h/ws/admin?token=t"], "").unwrap().is_none());
    for bad in [&["--url", user][..], &["--url", admin, "--user", "sari"], &["--url", user, "--token-file", "/nowhere"]] {
        assert!(tokens(bad, "").is_err(), "{bad:?}");
    }
}

/// A listener's end of a pipe, and the gateway's.
async fn piped() -> (Socket, WebSocketStream<tokio::io::DuplexStream>) {
    let (here, there) = tokio::io::duplex(4096);
    let here: Box<dyn dial::Pipe> = Box::new(here);
    let here = WebSocketStream::from_raw_socket(here, Role::Client, None).await;
    (here, WebSocketStream::from_raw_socket(there, Role::Server, None).await)
}

#[tokio::test(start_paused = true)]
async fn a_quiet_gateway_is_asked_where_the_session_stands_and_one_that_is_silent_is_left() {
    let sources = Sources::new(None, testing::environment(testing::SECRETS));
    let line = args(&["--url", "ws://h/ws/admin?token=t"]);
    let (tokens, dialer) = (Tokens::new(&line, io::empty()).unwrap(), Arc::new(Dialer::new(line.url.clone()).unwrap()));
    let mut out = Vec::new();
    let mut listener =
        Listener { dialer, tokens, sources: &sources, chat: None, place: Place::new(None), waits: WAITS, out: &mut out };
    let (here, mut there) = piped().await;
    let begun = Instant::now();
    let gateway = async {
        there.send(Message::text(READY)).await.unwrap();
        let asked = there.next().await.unwrap().unwrap();
        assert_eq!((asked, begun.elapsed()), (Message::text(r#"{"type":"ready"}"#), QUIET));
        there.send(Message::text(r#"{"type":"ready","payload":{"stream":"s1","safe":90}}"#)).await.unwrap();
        let _asked_again = there.next().await.unwrap().unwrap();
        there
    };
    let (ended, _there) = tokio::join!(listener.serve(Line::new(here)), gateway);
    assert_eq!(ended.unwrap(), Ended::ForNow("it has gone silent".to_owned(), Duration::ZERO));
    assert_eq!(begun.elapsed(), QUIET * 2 + ANSWER);
    assert_eq!(listener.place.cursor().unwrap().to_string(), "s1:90");
    assert_eq!(String::from_utf8(out).unwrap(), format!("{READY}\n"));
}

#[test]
fn waits_double_with_jitter_and_are_never_shorter_than_what_the_gateway_named() {
    let mut waits = WAITS;
    for longest in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        let longest = Duration::from_millis(longest);
        let wait = wait(&mut waits, Duration::ZERO);
        assert!((longest / 2..=longest).contains(&wait), "{wait:?} of {longest:?}");
    }
    let mut waits = WAITS;
    for _ in 0..5 {
        let wait = wait(&mut waits, Duration::from_secs(40));
        assert!((Duration::from_secs(40)..=Duration::from_secs(50)).contains(&wait), "{wait:?}");
    }
    let slower = closed(Some(&CloseFrame { code: CloseCode::from(SLOWER.0), reason: "".into() }));
    assert!(matches!(slower, Ended::ForNow(_, wait) if wait == SLOWER.1));
}
