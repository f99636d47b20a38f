//! A browser: one session that keeps a ledger of all that it sees. How it goes from socket to socket is in `session.rs`.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use daisi_ws_testbed::wait;
use tokio::{net::TcpStream, sync::watch, task::JoinSet, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, client::IntoClientRequest as _},
};

use super::{
    ledger::{Entry, Ledger, Seen},
    session::Session,
};
use crate::{
    containers::pod::{API_KEY, SharedIp},
    identity::Who,
};

/// Longest wait for a socket, `ready` included: a frozen pod gives none.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// How long a socket may take to say goodbye.
pub(super) const GOODBYE: Duration = Duration::from_secs(2);
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

pub(super) async fn open_with(to: SocketAddr, path_and_query: &str) -> Result<WebSocketStream<TcpStream>, WsError> {
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
        Self::run(who, token, pods, false)
    }

    /// The same, of a client that opens a second socket, to the next pod, when it is asked to move.
    #[must_use]
    pub fn start_moving(who: Who, token: String, pods: Vec<SharedIp>) -> Self {
        Self::run(who, token, pods, true)
    }

    fn run(who: Who, token: String, pods: Vec<SharedIp>, moves: bool) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger { who: who.clone(), entries: Vec::new() }));
        let (stop, stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(Session::new(who, token, pods, Arc::clone(&ledger)).moving(moves).live(stopped));
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

    /// The pod that it is connected to; the newer one, while it moves.
    #[must_use]
    pub fn connected_to(&self) -> Option<String> {
        self.look(|entries| {
            let mut ended = HashSet::new();
            entries.iter().rev().find_map(|entry| match &entry.seen {
                Seen::Ready(pod) if !ended.contains(&entry.socket) => Some(pod.clone()),
                seen if seen.is_end() => {
                    ended.insert(entry.socket);
                    None
                }
                _ => None,
            })
        })
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
