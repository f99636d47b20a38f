//! A TCP proxy in front of Redis that counts round trips: how often its clients wait for an answer before they go on.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use daisi_ws_service::runtime::lifecycle::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::sync::DropGuard;

use super::redis::tasks;

/// While round trips are counted, answers are held back until nothing has come from either side for so long. Whatever a client
/// sends meanwhile, it sends without an answer to what it sent before: it belongs to the same flight.
const HOLD: Duration = Duration::from_millis(20);

/// The commands of one round trip, each by its name and what follows it (a script, by all its keys): `SMEMBERS
/// route:acme:a1:chats`.
pub(crate) type Flight = Vec<String>;

/// The proxy; it ends with this value.
pub(crate) struct RoundTrips {
    address: String,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Shared {
    counting: AtomicBool,
    last: AtomicU64,
    /// What was sent in each flight.
    flights: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl RoundTrips {
    /// Starts one in front of `upstream`.
    pub(crate) async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let tasks = tasks();
        let stop = tasks.shutdown().hard.clone().drop_guard();
        tasks.spawn("round trips", accept(listener, upstream, Arc::clone(&shared), tasks.clone()));
        Self { address, shared, _stop: stop }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Runs `work`; returns its output and the flights that began meanwhile, on whatever connection.
    pub(crate) async fn during<F: Future>(&self, work: F) -> (F::Output, Vec<Flight>) {
        self.shared.flights.lock().unwrap().clear();
        self.shared.counting.store(true, Ordering::SeqCst);
        let output = work.await;
        self.shared.counting.store(false, Ordering::SeqCst);
        let flights = std::mem::take(&mut *self.shared.flights.lock().unwrap());
        (output, flights.values().map(|sent| commands(sent).unwrap_or_else(|| vec!["(cut off)".into()])).collect())
    }
}

async fn accept(listener: TcpListener, upstream: String, shared: Arc<Shared>, tasks: Tasks) {
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect(&upstream).await.unwrap();
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let relay = relay(client, server, Arc::clone(&shared));
        tasks.spawn("round trips: a connection", async move {
            // Either side may go whenever it likes.
            let _ = relay.await;
        });
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let (mut request, mut answers) = (Vec::with_capacity(65_536), Vec::with_capacity(65_536));
    let mut flight: Option<u64> = None;
    loop {
        let complete = flight.is_none_or(|flight| shared.is_complete(flight));
        tokio::select! {
            read = client.read_buf(&mut request) => {
                if read? == 0 {
                    return Ok(());
                }
                if shared.counting.load(Ordering::SeqCst) {
                    let flight = *flight.get_or_insert_with(|| shared.last.fetch_add(1, Ordering::SeqCst));
                    shared.flights.lock().unwrap().entry(flight).or_default().extend(&request);
                }
                server.write_all(&request).await?;
                request.clear();
            }
            read = server.read_buf(&mut answers) => if read? == 0 {
                return Ok(());
            },
            () = shared.hold(), if !answers.is_empty() && complete => {
                flight = None;
                client.write_all(&answers).await?;
                answers.clear();
            }
        }
    }
}

impl Shared {
    async fn hold(&self) {
        if self.counting.load(Ordering::SeqCst) {
            sleep(HOLD).await;
        }
    }

    fn is_complete(&self, flight: u64) -> bool {
        self.flights.lock().unwrap().get(&flight).is_none_or(|sent| commands(sent).is_some())
    }
}

/// Reads requests as clients of Redis write them: arrays of strings. `None` if the last one is not all there.
fn commands(mut sent: &[u8]) -> Option<Flight> {
    let mut commands = Vec::new();
    while !sent.is_empty() {
        let words: Vec<String> = (0..count(&mut sent, '*')?).map(|_| word(&mut sent)).collect::<Option<_>>()?;
        let shown = match words[0].as_str() {
            "EVALSHA" => std::iter::once(&words[0]).chain(words[3..].iter().take(words[2].parse().unwrap())).collect(),
            _ => words.iter().take(2).collect::<Vec<_>>(),
        };
        commands.push(shown.into_iter().map(String::as_str).collect::<Vec<_>>().join(" "));
    }
    Some(commands)
}

fn word(sent: &mut &[u8]) -> Option<String> {
    let length = count(sent, '$')?;
    let (word, rest) = sent.split_at_checked(length)?;
    *sent = rest.strip_prefix(b"\r\n")?;
    Some(String::from_utf8_lossy(word).into_owned())
}

/// `*3\r\n` or `$12\r\n`.
fn count(sent: &mut &[u8], kind: char) -> Option<usize> {
    let end = sent.windows(2).position(|pair| pair == b"\r\n")?;
    let count = std::str::from_utf8(&sent[..end]).unwrap().strip_prefix(kind).expect("a request is an array of strings");
    *sent = &sent[end + 2..];
    Some(count.parse().unwrap())
}
