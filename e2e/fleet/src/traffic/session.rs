//! How a client goes from socket to socket: to the next pod when its socket ends, and to a second one when it is asked to move. It
//! goes on in the stream where it stood.

use std::{
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, Message, protocol::CloseFrame},
};

use super::{
    client::{CONNECT, GOODBYE, open_with, path},
    ledger::{Entry, Ledger, Seen},
};
use crate::{
    containers::pod::{API_KEY, HTTP_PORT, SharedIp},
    identity::Who,
};

/// Between two attempts to connect; a crowd of browsers would wait longer.
const BACK_OFF: Duration = Duration::from_millis(200);
/// Close code of a session that a newer one replaced: a browser does not fight back.
const REPLACED: u16 = 4402;
/// Reason of the 1001 that a first socket ends with when the second has the session.
const MOVED: &str = "moved";

/// An open socket, and its number in the ledger.
struct Line {
    number: u32,
    socket: WebSocketStream<TcpStream>,
}

/// A socket that is there, with its `ready`.
struct Opened {
    line: Line,
    ready: String,
    /// The cursor that it was asked for with.
    cursor: Option<u64>,
    has_chat: bool,
}

/// An attempt at a socket under way. None: there is none to be had.
type Attempt = Pin<Box<dyn Future<Output = Option<Opened>> + Send>>;

/// What a socket brought.
enum Heard {
    Text(String),
    End(Seen),
}

/// A move under way: attempts until the time is over.
struct Move {
    until: Instant,
    attempt: Attempt,
}

/// What the task of a client holds.
pub(super) struct Session {
    who: Who,
    token: String,
    pods: Vec<SharedIp>,
    /// The pod that is next.
    turn: usize,
    moves: bool,
    ledger: Arc<Mutex<Ledger>>,
    /// Sockets asked for so far.
    sockets: u32,
    /// Where it stands: the stream and the highest place there that it was told by the socket that it has.
    place: Option<(String, u64)>,
    /// Sockets that answer a goodbye.
    goodbyes: JoinSet<()>,
}

impl Session {
    pub(super) fn new(who: Who, token: String, pods: Vec<SharedIp>, ledger: Arc<Mutex<Ledger>>) -> Self {
        Self { who, token, pods, turn: 0, moves: false, ledger, sockets: 0, place: None, goodbyes: JoinSet::new() }
    }

    /// The same, of a client that can move or can't.
    pub(super) fn moving(self, moves: bool) -> Self {
        Self { moves, ..self }
    }

    /// Goes from socket to socket, until it is told to stop or another has the session.
    pub(super) async fn live(mut self, mut stopped: watch::Receiver<bool>) {
        let mut told = Box::pin(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
        loop {
            let attempt = self.attempt(Duration::ZERO);
            let opened = tokio::select! {
                opened = attempt => opened,
                () = &mut told => return,
            };
            if let Some(opened) = opened {
                let line = self.has(opened);
                match self.serve(line, told.as_mut()).await {
                    None | Some(Some(REPLACED)) => return,
                    Some(_) => {}
                }
            }
            tokio::select! {
                () = sleep(BACK_OFF) => {}
                () = &mut told => return,
            }
        }
    }

    /// Reads a socket, and those that take its place, until the last of them has ended: its close code. None: told to stop.
    async fn serve(&mut self, line: Line, mut told: Pin<&mut impl Future<Output = ()>>) -> Option<Option<u16>> {
        let (mut line, mut first, mut moving) = (Some(line), None::<Line>, None::<Move>);
        let mut code = None;
        while line.is_some() || first.is_some() || moving.is_some() {
            tokio::select! {
                biased;
                () = &mut told => {
                    for line in [line, first].into_iter().flatten() {
                        let Line { mut socket, .. } = line;
                        let _ = timeout(GOODBYE, socket.close(None)).await;
                    }
                    return None;
                }
                (number, heard) = hear(&mut line) => match heard {
                    Heard::Text(text) => {
                        self.place(&text);
                        let seen = Seen::read(&text);
                        if seen == Seen::Asked && self.moves && moving.is_none() {
                            moving = Some(Move { until: Instant::now() + within(&text), attempt: self.attempt(Duration::ZERO) });
                        }
                        self.note(number, seen);
                    }
                    Heard::End(end) => {
                        code = if let Seen::Closed(code) = end { code } else { None };
                        self.note(number, end);
                        self.leave(line.take());
                    }
                },
                // From the second's `ready` on, only events count of what the first brings.
                (number, heard) = hear(&mut first) => match heard {
                    Heard::Text(text) => self.note(number, Seen::read(&text)),
                    Heard::End(end) => {
                        self.note(number, end);
                        self.leave(first.take());
                    }
                },
                opened = attempted(&mut moving) => match opened {
                    Some(opened) => {
                        moving = None;
                        // It is let go where it still has one before it.
                        if let Some(older) = first.take() {
                            self.note(older.number, Seen::Closed(None));
                            self.leave(Some(older));
                        }
                        first = line.replace(self.has(opened));
                    }
                    None => moving = moving.filter(|moving| moving.until > Instant::now()).map(|moving| Move {
                        attempt: self.attempt(BACK_OFF),
                        ..moving
                    }),
                },
            }
        }
        Some(code)
    }

    /// Asks the next pod for a socket, after so long.
    fn attempt(&mut self, after: Duration) -> Attempt {
        let ip = *self.pods[self.turn].lock().unwrap_or_else(PoisonError::into_inner);
        self.turn = (self.turn + 1) % self.pods.len();
        self.sockets += 1;
        let (number, ledger) = (self.sockets, Arc::clone(&self.ledger));
        let (cursor, target) = (self.place.as_ref().map(|(_, safe)| *safe), format!("{}?{}", path(&self.who), self.query()));
        let who = self.who.clone();
        Box::pin(async move {
            sleep(after).await;
            let to = SocketAddr::new(ip?, HTTP_PORT);
            let opened = timeout(CONNECT, async {
                let socket = match open_with(to, &target).await {
                    Err(WsError::Http(answer)) => {
                        note(&ledger, number, Seen::Refused(answer.status().as_u16()));
                        return None;
                    }
                    other => other.ok()?,
                };
                begun(Line { number, socket }, &who, cursor).await
            });
            opened.await.ok()?
        })
    }

    /// A socket has the session: its `ready` is taken in.
    fn has(&mut self, opened: Opened) -> Line {
        let Opened { line, ready, cursor, has_chat } = opened;
        self.place(&ready);
        self.note(line.number, Seen::read(&ready));
        if let Some(cursor) = cursor.filter(|_| resumed(&ready)) {
            self.note(line.number, Seen::Resumed(cursor));
        }
        if has_chat {
            self.note(line.number, Seen::ChatSelected);
        }
        line
    }

    /// Ends a socket: reading on sends the answer to its goodbye.
    fn leave(&mut self, line: Option<Line>) {
        while self.goodbyes.try_join_next().is_some() {}
        if let Some(Line { mut socket, .. }) = line {
            self.goodbyes.spawn(async move {
                let _ = timeout(GOODBYE, async { while let Some(Ok(_)) = socket.next().await {} }).await;
            });
        }
    }

    /// Takes in where a frame says that the session stands.
    fn place(&mut self, text: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
        let safe = frame["safe"].as_u64().or(frame["payload"]["safe"].as_u64());
        match (frame["payload"]["stream"].as_str(), &mut self.place) {
            (Some(stream), place) if frame["type"] == "ready" => {
                let known = place.take().filter(|(known, _)| known == stream).map_or(0, |(_, safe)| safe);
                *place = Some((stream.to_owned(), known.max(safe.unwrap_or(0))));
            }
            (_, Some((_, known))) if frame["type"] == "event" => *known = safe.map_or(*known, |safe| safe.max(*known)),
            _ => {}
        }
    }

    fn query(&self) -> String {
        let mut query = format!("token={}&x-api-key={API_KEY}", self.token);
        if self.moves {
            query.push_str("&move=1");
        }
        if let Some((stream, safe)) = &self.place {
            query.push_str(&format!("&resume={stream}:{safe}"));
            if let Who::User { chat: Some(chat), .. } = &self.who {
                query.push_str(&format!("&chat={chat}"));
            }
        }
        query
    }

    fn note(&self, socket: u32, seen: Seen) {
        note(&self.ledger, socket, seen);
    }
}

fn note(ledger: &Mutex<Ledger>, socket: u32, seen: Seen) {
    let entry = Entry { at: Instant::now(), socket, seen };
    ledger.lock().unwrap_or_else(PoisonError::into_inner).entries.push(entry);
}

/// Waits for the `ready` of a socket, and selects its chat where that was not named at the connect: the first time, as a page does
/// that was loaded.
async fn begun(mut line: Line, who: &Who, cursor: Option<u64>) -> Option<Opened> {
    while let Some(Ok(message)) = line.socket.next().await {
        let Message::Text(text) = message else { continue };
        if !matches!(Seen::read(&text), Seen::Ready(_)) {
            return None;
        }
        let has_chat = if let Who::User { chat: Some(chat), .. } = who {
            if cursor.is_none() {
                let frame = serde_json::json!({"type": "select_chat", "payload": {"chat_id": chat}}).to_string();
                line.socket.send(Message::text(frame)).await.ok()?;
            }
            cursor.is_some()
        } else {
            false
        };
        return Some(Opened { line, ready: text.to_string(), cursor, has_chat });
    }
    None
}

/// The next that a socket brings, if there is one. Cancel-safe.
async fn hear(line: &mut Option<Line>) -> (u32, Heard) {
    let Some(Line { number, socket }) = line else { return pending().await };
    loop {
        let heard = match socket.next().await {
            Some(Ok(Message::Text(text))) => Heard::Text(text.to_string()),
            Some(Ok(Message::Close(frame))) => Heard::End(end(frame.as_ref())),
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => Heard::End(Seen::Closed(None)),
        };
        return (*number, heard);
    }
}

fn end(frame: Option<&CloseFrame>) -> Seen {
    match frame {
        Some(frame) if frame.reason.as_str() == MOVED => Seen::Moved,
        frame => Seen::Closed(frame.map(|frame| frame.code.into())),
    }
}

/// What came of an attempt of a move, if there is one. Cancel-safe.
async fn attempted(moving: &mut Option<Move>) -> Option<Opened> {
    match moving {
        Some(moving) => moving.attempt.as_mut().await,
        None => pending().await,
    }
}

/// The time that a `move` names.
fn within(text: &str) -> Duration {
    let frame: Value = serde_json::from_str(text).unwrap_or_default();
    Duration::from_millis(frame["payload"]["within_ms"].as_u64().unwrap_or(0))
}

fn resumed(ready: &str) -> bool {
    serde_json::from_str::<Value>(ready).is_ok_and(|frame| frame["payload"]["resumed"] == true)
}
