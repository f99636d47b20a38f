//! A browser as a test sees it: waits for one thing at a time, each wait with a deadline.

use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, Message},
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both ways of a socket.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// An event as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct SeenEvent {
    pub(crate) seq: u64,
    pub(crate) payload: Value,
    pub(crate) text: String,
}

/// What came out of the socket.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Frame(Value, String),
    /// Close code, or none if the socket just broke.
    Closed(Option<u16>),
}

/// One socket of a test.
pub(crate) struct Client {
    socket: Socket,
    seen: VecDeque<Seen>,
}

enum Socket {
    /// Reads only when the test does: a client that may be slow, and that answers no pings meanwhile.
    Lazy(Box<WebSocketStream<Box<dyn Pipe>>>),
    /// Reads all the time, as a browser does.
    Eager { outgoing: mpsc::Sender<Message>, incoming: mpsc::UnboundedReceiver<Seen> },
}

/// What a message means to a test, if anything.
fn seen(message: Option<Result<Message, WsError>>) -> Option<Seen> {
    match message {
        Some(Ok(Message::Text(text))) => {
            let value = serde_json::from_str(&text).expect("every frame is JSON");
            Some(Seen::Frame(value, text.to_string()))
        }
        Some(Ok(Message::Close(frame))) => Some(Seen::Closed(frame.map(|frame| frame.code.into()))),
        Some(Ok(_)) => None,
        Some(Err(_)) | None => Some(Seen::Closed(None)),
    }
}

async fn read_all(
    mut socket: WebSocketStream<Box<dyn Pipe>>,
    mut orders: mpsc::Receiver<Message>,
    results: mpsc::UnboundedSender<Seen>,
) {
    loop {
        tokio::select! {
            message = socket.next() => {
                if let Some(seen) = seen(message) {
                    let ended = matches!(seen, Seen::Closed(_));
                    let _ = results.send(seen);
                    if ended {
                        // Reading on completes the closing handshake.
                        while let Some(Ok(_)) = socket.next().await {}
                        return;
                    }
                }
            }
            order = orders.recv() => match order {
                Some(message) => {
                    if socket.send(message).await.is_err() {
                        let _ = results.send(Seen::Closed(None));
                        return;
                    }
                }
                None => return,
            }
        }
    }
}

impl Client {
    /// A client that reads only when the test does.
    pub(crate) fn lazy(socket: WebSocketStream<Box<dyn Pipe>>) -> Self {
        Self { socket: Socket::Lazy(Box::new(socket)), seen: VecDeque::new() }
    }

    /// The same client, reading all the time from now on.
    #[expect(clippy::disallowed_methods, reason = "the task ends with its client")]
    pub(crate) fn eager(self) -> Self {
        let Socket::Lazy(socket) = self.socket else { return self };
        let (outgoing, orders) = mpsc::channel(64);
        let (results, incoming) = mpsc::unbounded_channel();
        tokio::spawn(read_all(*socket, orders, results));
        Self { socket: Socket::Eager { outgoing, incoming }, seen: self.seen }
    }

    /// The next frame or the end, however long it takes. Cancel-safe for a client that reads all the time.
    pub(crate) async fn read(&mut self) -> Seen {
        if let Some(seen) = self.seen.pop_front() {
            return seen;
        }
        match &mut self.socket {
            Socket::Lazy(socket) => loop {
                if let Some(seen) = seen(socket.next().await) {
                    return seen;
                }
            },
            Socket::Eager { incoming, .. } => incoming.recv().await.unwrap_or(Seen::Closed(None)),
        }
    }

    /// The next frame or the end, whatever it is.
    pub(crate) async fn next(&mut self) -> Seen {
        timeout(PATIENCE, self.read()).await.expect("nothing came within a minute")
    }

    /// The next frame, which must be of this type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        match self.next().await {
            Seen::Frame(frame, _) if frame["type"] == kind => frame,
            other => panic!("expected {kind}, got {other:?}"),
        }
    }

    pub(crate) async fn expect_ready(&mut self) -> Value {
        self.expect("ready").await
    }

    pub(crate) async fn expect_event(&mut self) -> SeenEvent {
        match self.next().await {
            Seen::Frame(frame, text) if frame["type"] == "event" => event(&frame, text),
            other => panic!("expected an event, got {other:?}"),
        }
    }

    /// The sequences of the next events, which must be so many.
    pub(crate) async fn expect_events(&mut self, count: usize) -> Vec<u64> {
        let mut seqs = Vec::new();
        for _ in 0..count {
            seqs.push(self.expect_event().await.seq);
        }
        seqs
    }

    /// Waits for the end and returns its code; frames before it are skipped.
    pub(crate) async fn expect_close(&mut self) -> Option<u16> {
        loop {
            if let Seen::Closed(code) = self.next().await {
                return code;
            }
        }
    }

    /// Fails if any frame comes within the time.
    pub(crate) async fn expect_silence(&mut self, time: Duration) {
        if let Ok(seen) = timeout(time, self.read()).await {
            panic!("expected silence, got {seen:?}");
        }
    }

    /// Everything that comes until the socket has been silent for so long.
    pub(crate) async fn drain(&mut self, silence: Duration) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let Ok(next) = timeout(silence, self.read()).await {
            let ended = matches!(next, Seen::Closed(_));
            seen.push(next);
            if ended {
                break;
            }
        }
        seen
    }

    /// The sequences of all events that come until the socket has been silent for so long.
    pub(crate) async fn drain_seqs(&mut self, silence: Duration) -> Vec<u64> {
        let seen = self.drain(silence).await;
        seen.iter()
            .filter_map(|seen| match seen {
                Seen::Frame(frame, _) if frame["type"] == "event" => frame["seq"].as_u64(),
                _ => None,
            })
            .collect()
    }

    /// Selects a chat and waits for the answer; events that come before it are kept for later.
    pub(crate) async fn select_chat(&mut self, chat: &str) {
        self.send(&serde_json::json!({"type": "select_chat", "payload": {"chat_id": chat}}).to_string()).await;
        let mut before = VecDeque::new();
        loop {
            match self.next().await {
                Seen::Frame(frame, _) if frame["type"] == "chat_selected" => {
                    assert_eq!(frame["payload"]["chat_id"], chat);
                    break;
                }
                Seen::Frame(frame, text) if frame["type"] == "event" => before.push_back(Seen::Frame(frame, text)),
                other => panic!("expected chat_selected, got {other:?}"),
            }
        }
        before.extend(self.seen.drain(..));
        self.seen = before;
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        let sent = async {
            match &mut self.socket {
                Socket::Lazy(socket) => socket.send(message).await.is_ok(),
                Socket::Eager { outgoing, .. } => outgoing.send(message).await.is_ok(),
            }
        };
        assert!(timeout(PATIENCE, sent).await.expect("the socket takes bytes"), "the socket is closed");
    }

    /// Says goodbye and waits for the answer.
    pub(crate) async fn close(mut self) {
        self.send_message(Message::Close(None)).await;
        self.expect_close().await;
    }
}

fn event(frame: &Value, text: String) -> SeenEvent {
    SeenEvent { seq: frame["seq"].as_u64().expect("events carry seq"), payload: frame["payload"].clone(), text }
}
