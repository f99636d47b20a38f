//! A pod as a process of its own: the real binary, on free ports.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WsError, client::IntoClientRequest as _};

use super::{
    client::{Client, Pipe},
    fixture::{API_KEY, MINT_KEY},
    wait,
};

/// Log lines as they came.
type Lines = Arc<Mutex<Vec<String>>>;

/// A running `serve`. Killed, if need be, when it is dropped.
pub(crate) struct ServePod {
    pub(crate) id: String,
    pub(crate) http: SocketAddr,
    child: Child,
    lines: Lines,
}

/// What a pod needs to know.
pub(crate) struct Surroundings {
    pub(crate) nats: String,
    pub(crate) redis: String,
}

impl ServePod {
    /// Starts a pod and waits until it is ready.
    pub(crate) async fn start(id: &str, around: &Surroundings, extra: &[(&str, &str)]) -> Self {
        let mut pod = Self::spawn(id, around, extra);
        let serving =
            |pod: &Self| pod.logged("the pod serves").first().and_then(|line| line["http.address"].as_str()?.parse().ok());
        wait::until("the pod serves", || {
            let there = serving(&pod);
            pod.http = there.unwrap_or(pod.http);
            std::future::ready(there.is_some())
        })
        .await;
        wait::until("the pod is ready", || async {
            pod.get("/ready").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        })
        .await;
        pod
    }

    /// Starts a pod and waits for nothing.
    pub(crate) fn spawn(id: &str, around: &Surroundings, extra: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daisi-ws-service"));
        command.arg("serve").env_clear().stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null());
        command.envs([
            ("DAISI_WS_SERVER_POD_ID", id),
            ("DAISI_WS_SERVER_BIND_ADDRESS", "127.0.0.1"),
            ("DAISI_WS_SERVER_HTTP_PORT", "0"),
            ("DAISI_WS_SERVER_GRPC_PORT", "0"),
            ("DAISI_WS_NATS_URL", &around.nats),
            ("DAISI_WS_NATS_STREAM_MAX_BYTES", "16777216"),
            ("DAISI_WS_REDIS_ADDRESS", &around.redis),
            ("DAISI_WS_AUTH_SECRET_TOKEN", API_KEY),
            ("DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY", MINT_KEY),
            ("DAISI_WS_AUTH_TOKEN_AES_KEY", &super::fixture::user_key()),
            ("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", &super::fixture::admin_key()),
        ]);
        command.envs(extra.iter().copied());
        let mut child = command.spawn().expect("the binary was built with the tests");
        let lines = Lines::default();
        let (stderr, sink) = (child.stderr.take().expect("piped"), Arc::clone(&lines));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        Self { id: id.to_owned(), http: SocketAddr::from(([0, 0, 0, 0], 0)), child, lines }
    }

    /// The whole answer to a GET, if the pod answers.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let ask = async {
            let mut socket = TcpStream::connect(self.http).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        tokio::time::timeout(Duration::from_secs(2), ask).await.ok()?
    }

    /// Opens a socket and waits for `ready`; reads all the time from then on.
    pub(crate) async fn connect(&self, path: &str, token: &str) -> Client {
        let mut client = self.open(path, token).await.expect("the pod lets it in");
        client.expect_ready().await;
        client.eager()
    }

    /// Opens a socket; the HTTP error if there is none to be had.
    pub(crate) async fn open(&self, path: &str, token: &str) -> Result<Client, WsError> {
        let stream = TcpStream::connect(self.http).await?;
        let mut request = format!("ws://{}{path}", self.http).into_client_request()?;
        request.headers_mut().insert("x-api-key", API_KEY.parse().expect("ASCII"));
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
        request.headers_mut().insert("sec-websocket-protocol", "json.v1".parse().expect("ASCII"));
        let pipe: Box<dyn Pipe> = Box::new(stream);
        let (socket, _) = tokio_tungstenite::client_async(request, pipe).await?;
        Ok(Client::lazy(socket))
    }

    /// Sends a signal: `TERM`, `KILL`, `STOP`, `CONT`, `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill is there");
        assert!(sent.success(), "kill -s {name} failed");
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let mut status = None;
        for _ in 0..4000 {
            status = child.try_wait().expect("the child is ours");
            if status.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        status.expect("the pod ends within 40 s")
    }

    /// What the system says of the process, a line each.
    pub(crate) fn status(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the pod lives")
    }

    /// The log so far, a line each.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The log lines with this message.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["message"] == message).collect()
    }
}

impl Drop for ServePod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.id, self.log().join("\n"));
        }
    }
}
