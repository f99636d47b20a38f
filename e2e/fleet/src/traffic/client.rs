//! A browser: one session that keeps a ledger of all that it sees, and connects again, to the next pod, when its socket ends. It
//! goes on in the stream where it stood.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use daisi_ws_testbed::wait;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, Message, client::IntoClientRequest as _},
};

use super::ledger::{Entry, Ledger, Seen};
use crate::{
    containers::pod::{API_KEY, HTTP_PORT, SharedIp},
    identity::Who,
};

/// Longest wait for a socket, `ready` included: a frozen pod gives none.
const CONNECT: Duration = Duration::from_secs(3);
/// Between two attempts to connect; a crowd of browsers would wait longer.
const BACK_OFF: Duration = Duration::from_millis(200);
/// How long a socket may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Close code of a session that a newer one replaced: a browser does not fight back.
const REPLACED: u16 = 4402;
/// Longest wait for what a test expects a client to see.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens one socket, without waiting for `ready`.
///
/// # Errors
/// When there is none to be had; a refusal is `WsError::Http`.
pub async fn open(to: SocketAddr, who: &Who, token: &str) -> Result<WebSocketStream<TcpStream>, WsError> {
    open_path(to, &path(who), token, API_KEY).await
}

/// The path of a session.
#[must_use]
pub fn path(who: &Who) -> String {
    match who {
        Who::User { company, agent, .. } => format!("/ws/{company}/{agent}"),
        Who::Admin { .. } => "/ws/admin".to_owned(),
    }
}

/// Opens one socket at any path with any key.
///
/// # Errors
/// As [`open`].
pub async fn open_path(to: SocketAddr, path: &str, token: &str, api_key: &str) -> Result<WebSocketStream<TcpStream>, WsError> {
    open_with(to, &format!("{path}?token={token}&x-api-key={api_key}")).await
}

async fn open_with(to: SocketAddr, path_and_query: &str) -> Result<WebSocketStream<TcpStream>, WsError> {
    let stream = TcpStream::connect(to).await?;
    let mut request = format!("ws://{to}{path_and_query}").into_client_request()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", tokio_tungstenite::tungstenite::http::HeaderValue::from_static("json.v1"));
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// The status of a refusal; none where the socket was opened or nobody answered.
pub async fn refusal(to: SocketAddr, path: &str, token: &str, api_key: &str) -> Option<u16> {
    match timeout(CONNECT, open_path(to, path, token, api_key)).await {
        Ok(Err(WsError::Http(answer))) => Some(answer.status().as_u16()),
        _ => None,
    }
}

/// A running client. It ends, without a goodbye, when it is dropped.
pub struct Client {
    ledger: Arc<Mutex<Ledger>>,
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

impl Client {
    /// Starts a session that tries these pods in turn, and goes on with the next one each time that its socket ends.
    #[must_use]
    pub fn start(who: Who, token: String, pods: Vec<SharedIp>) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger { who: who.clone(), entries: Vec::new() }));
        let (stop, stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(live(Session { who, token, pods, ledger: Arc::clone(&ledger), stopped, place: None }));
        Self { ledger, stop, task }
    }

    /// What was seen so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the ledger without a copy.
    pub fn look<T>(&self, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner).entries)
    }

    /// Does a socket stand, as far as the client knows?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected_to().is_some()
    }

    /// The pod that it is connected to.
    #[must_use]
    pub fn connected_to(&self) -> Option<String> {
        self.look(|entries| {
            entries.iter().rev().find_map(|entry| match &entry.seen {
                Seen::Ready(pod) => Some(Some(pod.clone())),
                Seen::Closed(_) => Some(None),
                _ => None,
            })
        })
        .flatten()
    }

    /// Waits until something was seen that answers to the description.
    ///
    /// # Errors
    /// With the end of the ledger when it was not seen in time.
    pub async fn sees(&self, what: &str, matches: impl Fn(&Seen) -> bool) -> Result<()> {
        let seen = || std::future::ready(self.look(|entries| entries.iter().any(|entry| matches(&entry.seen))));
        match wait::until(what, PATIENCE, seen).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let tail: Vec<_> = self.look(|entries| entries.iter().rev().take(10).map(|entry| entry.seen.clone()).collect());
                bail!("{error}; the last it saw, newest first: {tail:?}")
            }
        }
    }

    /// Waits until it has a socket, with its chat selected if it has one.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn ready(&self) -> Result<()> {
        let has_chat = matches!(self.ledger().who, Who::User { chat: Some(_), .. });
        self.sees(
            "the session is ready",
            |seen| if has_chat { *seen == Seen::ChatSelected } else { matches!(seen, Seen::Ready(_)) },
        )
        .await
    }

    /// Ends the session and returns its ledger.
    pub async fn stop(mut self) -> Ledger {
        let _ = self.stop.send(true);
        let _ = timeout(GOODBYE, self.task.join_next()).await;
        self.ledger()
    }
}

/// What the task of a client holds.
struct Session {
    who: Who,
    token: String,
    pods: Vec<SharedIp>,
    ledger: Arc<Mutex<Ledger>>,
    stopped: watch::Receiver<bool>,
    /// Where it stands: the stream and the highest place there that it was told.
    place: Option<(String, u64)>,
}

impl Session {
    /// Takes in where a frame says that the session stands.
    fn place(&mut self, text: &str) {
        let Ok(frame) = serde_json::from_str::<serde_json::Value>(text) else { return };
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
        if let Some((stream, safe)) = &self.place {
            query.push_str(&format!("&resume={stream}:{safe}"));
            if let Who::User { chat: Some(chat), .. } = &self.who {
                query.push_str(&format!("&chat={chat}"));
            }
        }
        query
    }

    fn note(&self, seen: Seen) {
        let entry = Entry { at: Instant::now(), seen };
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).entries.push(entry);
    }
}

/// Ends when the client shall stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn live(mut session: Session) {
    let mut stopped = session.stopped.clone();
    for turn in (0..session.pods.len()).cycle() {
        let ip = *session.pods[turn].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ip) = ip {
            let to = SocketAddr::new(ip, HTTP_PORT);
            if let Ok(Some((socket, ready))) = timeout(CONNECT, connect(to, &mut session)).await {
                let has_chat = ready.has_chat;
                session.note(ready.seen);
                if has_chat {
                    session.note(Seen::ChatSelected);
                }
                let code = read(socket, &mut session).await;
                if *session.stopped.borrow() {
                    return;
                }
                session.note(Seen::Closed(code));
                if code == Some(REPLACED) {
                    return;
                }
            }
        }
        tokio::select! {
            () = sleep(BACK_OFF) => {}
            () = told(&mut stopped) => return,
        }
    }
}

/// What `ready` said.
struct Ready {
    seen: Seen,
    /// The chat is selected already.
    has_chat: bool,
}

async fn connect(to: SocketAddr, session: &mut Session) -> Option<(WebSocketStream<TcpStream>, Ready)> {
    let wants_chat = session.place.is_some();
    let mut socket = open_with(to, &format!("{}?{}", path(&session.who), session.query())).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let seen = Seen::read(&text);
        if !matches!(seen, Seen::Ready(_)) {
            return None;
        }
        session.place(&text);
        let Who::User { chat: Some(chat), .. } = &session.who else { return Some((socket, Ready { seen, has_chat: false })) };
        // The first time it is selected as a page does that was loaded; then it is named at the connect.
        if !wants_chat {
            let frame = serde_json::json!({"type": "select_chat", "payload": {"chat_id": chat}}).to_string();
            socket.send(Message::text(frame)).await.ok()?;
        }
        return Some((socket, Ready { seen, has_chat: wants_chat }));
    }
    None
}

/// Reads until the end and returns the close code.
async fn read(mut socket: WebSocketStream<TcpStream>, session: &mut Session) -> Option<u16> {
    let mut stopped = session.stopped.clone();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = told(&mut stopped) => {
                let _ = timeout(GOODBYE, socket.close(None)).await;
                return None;
            }
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                session.place(&text);
                session.note(Seen::read(&text));
            }
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map(|frame| frame.code.into());
                // Reading on sends the answer to the goodbye.
                let _ = timeout(GOODBYE, async { while let Some(Ok(_)) = socket.next().await {} }).await;
                return code;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}
