//! The ordinary users of the pod that is attacked: sockets that get events all the time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use daisi_ws_testbed::wait;
use futures_util::StreamExt as _;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::samples::Samples;
use crate::stage::{pod::API_KEY, servers::Stage};

/// The company of all of them; each has the agent `agent-{index}`.
pub(crate) const COMPANY: &str = "audience";
/// Longest way to `ready`; longer than a pod that has no Redis looks for it.
const OPENING: Duration = Duration::from_secs(20);
/// Before a socket that was closed is opened again.
const BACK_OFF: Duration = Duration::from_millis(200);

/// One event.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    took: Option<Duration>,
    copies: u32,
}

#[derive(Debug, Default)]
struct Book {
    sent: Vec<Sent>,
    closed: BTreeMap<u16, usize>,
    gaps: usize,
}

type Shared = Arc<Mutex<Book>>;

/// What came of the events that were published in a span of time.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// How long each took from the publisher to its socket.
    pub took: Samples,
    /// Events that never came.
    pub lost: usize,
    /// Events that came more than once, but for those that a resume brought again.
    pub doubled: usize,
}

/// So many sockets, each with an agent of its own, and the publisher of their events.
#[derive(Debug)]
pub(crate) struct Audience {
    book: Shared,
    _tasks: JoinSet<()>,
}

/// Opens a socket and reads up to `ready`, whose payload it returns.
///
/// # Errors
/// When it is not let in.
pub(crate) async fn open(
    to: SocketAddr,
    path: &str,
    token: &str,
    resume: Option<&str>,
) -> Result<(WebSocketStream<TcpStream>, serde_json::Value)> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let resume = resume.map(|cursor| format!("?resume={cursor}")).unwrap_or_default();
    let mut request = format!("ws://{to}{path}{resume}").into_client_request()?;
    request.headers_mut().insert("x-api-key", API_KEY.parse()?);
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
    request.headers_mut().insert("sec-websocket-protocol", "json.v1".parse()?);
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let frame: serde_json::Value = serde_json::from_str(&text)?;
        if frame["type"] == "ready" {
            return Ok((socket, frame["payload"].clone()));
        }
    }
    bail!("the socket ends before it is ready")
}

impl Audience {
    /// Opens the sockets at the first pod and starts to publish so many events a second, to one socket after another.
    ///
    /// # Errors
    /// When a socket can't be opened, or NATS does not answer.
    pub(crate) async fn start(stage: &Stage, sockets: usize, events_per_second: u32) -> Result<Self> {
        let pod = stage.pods.first().context("a stage has pods")?;
        let book = Shared::default();
        let mut tasks = JoinSet::new();
        for index in 0..sockets {
            let agent = format!("agent-{index}");
            let token = pod.token(COMPANY, &agent, "somebody").await?;
            let (path, to) = (format!("/ws/{COMPANY}/{agent}"), pod.http);
            let (socket, ready) = timeout(OPENING, open(to, &path, &token, None)).await.context("a socket does not open")??;
            tasks.spawn(listen(to, path, token, socket, ready, Arc::clone(&book)));
        }
        let nats = async_nats::connect(stage.nats.to_string()).await.context("NATS does not answer")?;
        tasks.spawn(publish(nats, sockets, events_per_second, Arc::clone(&book)));
        Ok(Self { book, _tasks: tasks })
    }

    /// Waits until every event that was published before `until` has come, at most for so long.
    pub(crate) async fn settled(&self, until: Instant, within: Duration) {
        let all_here = || {
            let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            std::future::ready(book.sent.iter().take_while(|sent| sent.at < until).all(|sent| sent.copies > 0))
        };
        // What is not there by then is counted as lost.
        let _ = wait::until("every event has come", within, all_here).await;
    }

    /// What came of the events published from `since` until `until`.
    #[must_use]
    pub(crate) fn heard(&self, since: Instant, until: Instant) -> Heard {
        let mut heard = Heard::default();
        for sent in &self.book.lock().unwrap_or_else(PoisonError::into_inner).sent {
            if sent.at >= since && sent.at < until {
                heard.lost += usize::from(sent.copies == 0);
                heard.doubled += usize::from(sent.copies > 1);
                if let Some(took) = sent.took {
                    heard.took.add(took);
                }
            }
        }
        heard
    }

    /// Sockets that were closed, by code, and gaps that were announced.
    #[must_use]
    pub(crate) fn disturbed(&self) -> (BTreeMap<u16, usize>, usize) {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        (book.closed.clone(), book.gaps)
    }
}

async fn publish(nats: async_nats::Client, sockets: usize, per_second: u32, book: Shared) {
    let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
    for number in 0_usize.. {
        ticks.tick().await;
        let agent = format!("agent-{}", number % sockets.max(1));
        let event = serde_json::json!({
            "event_id": format!("event-{number}"), "n": number, "company_id": COMPANY, "agent_id": agent,
            "row_data": {"text": "Lorem ipsum dolor sit amet, consectetur adipiscing elit."},
        });
        let sent = Sent { at: Instant::now(), took: None, copies: 0 };
        book.lock().unwrap_or_else(PoisonError::into_inner).sent.push(sent);
        let subject = format!("wa.{COMPANY}.{agent}.chats");
        if nats.publish(subject, event.to_string().into()).await.is_err() || nats.flush().await.is_err() {
            return;
        }
    }
}

/// Reads a socket, and opens it again where it left off each time that it ends.
async fn listen(
    to: SocketAddr,
    path: String,
    token: String,
    mut socket: WebSocketStream<TcpStream>,
    mut ready: serde_json::Value,
    book: Shared,
) {
    loop {
        let stream = ready["stream"].as_str().unwrap_or_default().to_owned();
        let mut safe = ready["safe"].as_u64().unwrap_or_default();
        let code = read(&mut socket, &mut safe, &book).await;
        *book.lock().unwrap_or_else(PoisonError::into_inner).closed.entry(code).or_default() += 1;
        (socket, ready) = loop {
            sleep(BACK_OFF).await;
            if let Ok(Ok(opened)) = timeout(OPENING, open(to, &path, &token, Some(&format!("{stream}:{safe}")))).await {
                break opened;
            }
        };
    }
}

/// Notes events until the socket ends, and returns the code with which it was closed; 0: it broke.
async fn read(socket: &mut WebSocketStream<TcpStream>, safe: &mut u64, book: &Shared) -> u16 {
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) => {
                let now = Instant::now();
                let Ok(frame) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
                *safe = frame["safe"].as_u64().map_or(*safe, |read| read.max(*safe));
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                book.gaps += usize::from(frame["type"] == "gap");
                let number = frame["payload"]["n"].as_u64().and_then(|number| usize::try_from(number).ok());
                let replayed = frame["replayed"] == true;
                if let Some(sent) = number.and_then(|number| book.sent.get_mut(number))
                    && !(replayed && sent.copies > 0)
                {
                    sent.copies += 1;
                    sent.took = sent.took.or_else(|| Some(now.duration_since(sent.at)));
                }
            }
            Message::Close(frame) => return frame.map_or(0, |frame| frame.code.into()),
            _ => {}
        }
    }
    0
}
