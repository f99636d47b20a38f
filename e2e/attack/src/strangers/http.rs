//! Strangers at the port of browsers.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, sleep, sleep_until},
};

use super::{
    crowd::{crowd, crowd_of},
    http2::PREFACE,
    order::Order,
    tally::Tally,
};

/// Bytes of pipelined requests that are sent once: little, and each asks for much.
const PIPELINED_BYTES: usize = 2000;
/// Made-up keys and tokens that are tried a second, over all connections; the rest of the machine is for the gateway.
const GUESSES_PER_SECOND: u32 = 20_000;

/// Connections that say nothing.
pub(super) async fn idle(order: Arc<Order>, tally: Tally) {
    let to = order.http;
    idle_at(order, to, tally).await;
}

/// The same where orchestrators and scrapers ask.
pub(super) async fn idle_probes(order: Arc<Order>, tally: Tally) {
    let to = order.probes;
    idle_at(order, to, tally).await;
}

/// The same at any port.
pub(super) async fn idle_at(order: Arc<Order>, to: SocketAddr, tally: Tally) {
    stay(order, to, tally, &[]).await;
}

/// Connects, sends this, and waits until the other side ends the connection.
async fn stay(order: Arc<Order>, to: SocketAddr, tally: Tally, first: &'static [u8]) {
    crowd(order, tally, move |order, tally, index| async move {
        let mut socket = order.dial(index, to).await?;
        tally.one("opened");
        socket.write_all(first).await?;
        socket.read_to_end(&mut Vec::new()).await.map(drop)
    })
    .await;
}

/// Connections that ask for the metrics many times at once and read nothing.
pub(super) async fn pipeline(order: Arc<Order>, tally: Tally) {
    crowd(order, tally, move |order, tally, index| async move {
        let mut socket = order.dial_narrow(index, order.http).await?;
        tally.one("opened");
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        socket.write_all(&request.repeat(PIPELINED_BYTES / request.len())).await?;
        // A byte now and then tells whether the other side has gone, without reading.
        loop {
            sleep(Duration::from_millis(500)).await;
            socket.write_all(b"G").await?;
        }
    })
    .await;
}

/// A request whose header never comes to its end, a byte a second.
pub(super) async fn slow_headers(order: Arc<Order>, tally: Tally) {
    trickle(order, tally, "GET /health HTTP/1.1\r\nHost: x\r\nX-Filler: ").await;
}

/// A request whose body never comes to its end.
pub(super) async fn slow_body(order: Arc<Order>, tally: Tally) {
    let head = "POST /generate-token HTTP/1.1\r\nHost: x\r\nX-API-Key: nobody-holds-this-key\r\n\
                Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"company_id\":\"";
    trickle(order, tally, head).await;
}

async fn trickle(order: Arc<Order>, tally: Tally, head: &'static str) {
    crowd(order, tally, move |order, tally, index| async move {
        let mut socket = order.dial(index, order.http).await?;
        tally.one("opened");
        socket.write_all(head.as_bytes()).await?;
        loop {
            sleep(Duration::from_secs(1)).await;
            socket.write_all(b"x").await?;
        }
    })
    .await;
}

/// Requests with as many headers as a server may take, one after another.
pub(super) async fn many_headers(order: Arc<Order>, tally: Tally) {
    let headers = (0..90).map(|number| format!("X-Filler-{number}: {}\r\n", "y".repeat(60)));
    again_and_again(order, tally, headers.collect()).await;
}

/// Requests whose id is very long: it would be in each line of the log.
pub(super) async fn long_request_ids(order: Arc<Order>, tally: Tally) {
    again_and_again(order, tally, format!("X-Request-ID: {}\r\n", "y".repeat(30_000))).await;
}

async fn again_and_again(order: Arc<Order>, tally: Tally, headers: String) {
    let request = format!("GET /ws/acme/agent HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    crowd(order, tally, move |order, tally, index| {
        let request = request.clone();
        async move {
            let mut socket = BufReader::new(order.dial(index, order.http).await?);
            loop {
                socket.write_all(request.as_bytes()).await?;
                let (status, closes) = status(&mut socket).await?;
                tally.one(&status.to_string());
                if closes {
                    return Ok(());
                }
            }
        }
    })
    .await;
}

/// The greeting of another protocol, and then nothing.
pub(super) async fn http2_preface(order: Arc<Order>, tally: Tally) {
    let to = order.http;
    stay(order, to, tally, PREFACE).await;
}

/// Connects with a wrong API key, each on a connection of its own: `count` in all, as fast as they are answered.
pub(super) async fn refused(order: Arc<Order>, tally: Tally) {
    const REQUEST: &str =
        "GET /ws/acme/agent HTTP/1.1\r\nHost: x\r\nX-API-Key: nobody-holds-this-key\r\nConnection: close\r\n\r\n";
    let left = Arc::new(AtomicUsize::new(order.count));
    crowd_of(40, order, tally, move |order, tally, index| {
        let left = Arc::clone(&left);
        async move {
            for turn in 0.. {
                if left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
                    return std::future::pending().await;
                }
                let mut socket = BufReader::new(order.dial(index * 50 + turn % 50, order.http).await?);
                socket.write_all(REQUEST.as_bytes()).await?;
                tally.one(&status(&mut socket).await?.0.to_string());
            }
            Ok(())
        }
    })
    .await;
}

/// Guesses of the key that mints tokens.
pub(super) async fn key_guessing(order: Arc<Order>, tally: Tally) {
    guess(order, tally, |number, _| {
        let body = r#"{"company_id":"acme","agent_id":"agent","user_id":"user","expires_in_seconds":60}"#;
        format!(
            "POST /generate-token HTTP/1.1\r\nHost: x\r\nX-API-Key: guess-number-{number:024}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
    .await;
}

/// Made-up tokens with the key that every page has.
pub(super) async fn made_up_tokens(order: Arc<Order>, tally: Tally) {
    guess(order, tally, |number, api_key| {
        // Of the size and the alphabet of a real one.
        let token = format!("{number:0>184}");
        format!(
            "GET /ws/acme/agent?token={token} HTTP/1.1\r\nHost: x\r\nX-API-Key: {api_key}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZGFpc2ktd3MtbG9hZC1rZQ==\r\n\r\n"
        )
    })
    .await;
}

/// Sends a request after the other on each connection, and counts the answers by status. A server that closes is dialled again at
/// once.
async fn guess(order: Arc<Order>, tally: Tally, request: fn(usize, &str) -> String) {
    let pause = Duration::from_secs(1) * u32::try_from(order.count).unwrap_or(u32::MAX) / GUESSES_PER_SECOND;
    crowd(order, tally, move |order, tally, index| async move {
        let mut socket = BufReader::new(order.dial(index, order.http).await?);
        let mut due = Instant::now();
        for turn in 0.. {
            sleep_until(due).await;
            due += pause;
            socket.write_all(request(turn * 1000 + index, &order.api_key).as_bytes()).await?;
            let (status, closes) = status(&mut socket).await?;
            tally.one(&status.to_string());
            tally.one("attempts");
            if closes {
                socket = BufReader::new(order.dial(index, order.http).await?);
            }
        }
        Ok(())
    })
    .await;
}

/// Reads an answer: its status, and whether the server closes after it.
pub(super) async fn status(socket: &mut BufReader<TcpStream>) -> io::Result<(u16, bool)> {
    let mut line = String::new();
    socket.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::UnexpectedEof)?;
    let (mut length, mut closes) = (0, false);
    loop {
        line.clear();
        socket.read_line(&mut line).await?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
        closes |= header == "connection: close";
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    Ok((status, closes))
}
