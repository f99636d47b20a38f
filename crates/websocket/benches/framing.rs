//! Our framing beside tungstenite's on loopback: memory of an idle socket, and CPU of a delivery that is written by itself or
//! with others.
//!
//! ```text
//! cargo bench -p daisi-ws-websocket --bench framing
//! ```
//!
//! One thread serves, another reads as a client does. Each kind of socket runs in a process of its own, as memory that was given
//! back by one would serve the next. The table has the least and the most of all turns.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench stops when a socket fails")]

use std::{
    future::poll_fn,
    io::{ErrorKind, Read as _},
    net::TcpStream as Client,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use daisi_ws_websocket::{Upgraded, WebSocket, deflate::Inflater, encode};
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, WebSocketConfig},
    },
};

const SOCKETS: usize = 2_000;
const PAYLOAD_BYTES: usize = 300;
const BURST: usize = 30;
const ROUNDS: usize = 20;
const TURNS: usize = 5;
/// A message of a client is no longer than this.
const MAX_MESSAGE: usize = 64 * 1024;
const KINDS: [(&str, &str); 3] =
    [("ours", "ours"), ("theirs", "tungstenite, as it comes"), ("theirs-small", "tungstenite, read buffer of 1 KiB")];

fn main() {
    if let Ok(kind) = std::env::var("FRAMING_KIND") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(measure(&kind));
    }
    println!("{SOCKETS} sockets, events of {PAYLOAD_BYTES} bytes; least to most of {TURNS} turns");
    println!(
        "| Framing | Memory of an idle socket, KB | CPU of a delivery by itself, µs | CPU of one of {BURST} together, µs \
        |\n|---|---|---|---|"
    );
    let mut turns = KINDS.map(|_| Vec::new());
    for _ in 0..TURNS {
        for ((kind, _), turns) in KINDS.iter().zip(&mut turns) {
            let program = std::env::current_exe().unwrap();
            let output = Command::new(program).env("FRAMING_KIND", kind).output().unwrap();
            let figures = String::from_utf8(output.stdout).unwrap();
            turns.push(figures.split_whitespace().map(|figure| figure.parse().unwrap()).collect::<Vec<f64>>());
        }
    }
    for ((_, name), turns) in KINDS.iter().zip(&turns) {
        let range = |column: usize| {
            let values = || turns.iter().map(|turn| turn[column]);
            format!("{:.2}–{:.2}", values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
        };
        println!("| {name} | {} | {} | {} |", range(0), range(1), range(2));
    }
}

/// A server's socket.
enum Socket {
    Ours(Box<WebSocket<TcpStream>>),
    Theirs(Box<WebSocketStream<TcpStream>>),
}

impl Socket {
    async fn new(kind: &str, stream: TcpStream) -> Self {
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));
        match kind {
            "ours" => Self::Ours(Box::new(WebSocket::new(Upgraded::from(stream), MAX_MESSAGE, Inflater::Off))),
            "theirs" => Self::Theirs(Box::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)),
            _ => {
                let small = config.read_buffer_size(1024);
                Self::Theirs(Box::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(small)).await))
            }
        }
    }

    /// Looks for a message, as a socket's task does at each wake-up. There is none.
    async fn look(&mut self) {
        poll_fn(|cx| {
            match self {
                Self::Ours(socket) => assert!(socket.poll_receive(cx).is_pending()),
                Self::Theirs(socket) => assert!(socket.poll_next_unpin(cx).is_pending()),
            }
            std::task::Poll::Ready(())
        })
        .await;
    }

    /// Writes so many events at once.
    async fn deliver(&mut self, count: usize, frame: &Bytes, message: &Message) {
        match self {
            Self::Ours(socket) if count == 1 => {
                poll_fn(|cx| std::task::Poll::Ready(socket.write(cx, frame))).await.unwrap();
                poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
            }
            Self::Ours(socket) => {
                (0..count).for_each(|_| socket.queue(frame.clone()));
                poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
            }
            Self::Theirs(socket) => {
                for _ in 0..count {
                    socket.feed(message.clone()).await.unwrap();
                }
                socket.flush().await.unwrap();
            }
        }
    }
}

/// Prints what one kind of socket takes: memory, CPU of a delivery by itself, and of one of many.
async fn measure(kind: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut streams, mut clients) = (Vec::with_capacity(SOCKETS), Vec::with_capacity(SOCKETS));
    for _ in 0..SOCKETS {
        let client = Client::connect(address).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push(client);
        streams.push(listener.accept().await.unwrap().0);
    }
    let mut sockets = Vec::with_capacity(SOCKETS);
    let before = private_kilobytes();
    for stream in streams {
        let mut socket = Socket::new(kind, stream).await;
        socket.look().await;
        sockets.push(socket);
    }
    let memory = (private_kilobytes() - before) / SOCKETS as f64;
    let reader = Reader::start(clients);
    let frame = encode::text("x".repeat(PAYLOAD_BYTES).as_bytes());
    let message = Message::text("x".repeat(PAYLOAD_BYTES));
    let mut cpu = [0.0; 2];
    for (cpu, count) in cpu.iter_mut().zip([1, BURST]) {
        let began = thread_cpu();
        for _ in 0..ROUNDS {
            for socket in &mut sockets {
                socket.look().await;
                socket.deliver(count, &frame, &message).await;
            }
        }
        *cpu = (thread_cpu() - began).as_secs_f64() * 1e6 / (SOCKETS * ROUNDS * count) as f64;
        reader.wait_for(SOCKETS * ROUNDS * count * frame.len());
    }
    println!("{memory} {} {}", cpu[0], cpu[1]);
}

/// A thread that reads what clients are sent.
struct Reader {
    read: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Reader {
    fn start(mut clients: Vec<Client>) -> Self {
        let reader = Self { read: Arc::default(), over: Arc::default() };
        let (read, over) = (Arc::clone(&reader.read), Arc::clone(&reader.over));
        std::thread::spawn(move || {
            let mut buffer = vec![0; MAX_MESSAGE];
            while !over.load(Ordering::Relaxed) {
                for client in &mut clients {
                    match client.read(&mut buffer) {
                        Ok(bytes) => drop(read.fetch_add(bytes, Ordering::Relaxed)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
            }
        });
        reader
    }

    /// Waits until so many bytes have come, and begins to count anew.
    fn wait_for(&self, bytes: usize) {
        while self.read.load(Ordering::Relaxed) < bytes {
            std::thread::yield_now();
        }
        self.read.store(0, Ordering::Relaxed);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("it is positive")
}

/// Memory that is this process's alone.
fn private_kilobytes() -> f64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let private = smaps.lines().filter(|line| line.starts_with("Private_")).filter_map(|line| line.split_whitespace().nth(1));
    private.map(|kilobytes| kilobytes.parse::<f64>().unwrap()).sum()
}
