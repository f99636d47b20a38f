//! Strangers with a token: one user, or many who have conspired.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    crowd::{crowd, discard},
    http::status,
    order::{Order, Pass},
    tally::Tally,
};

/// Bytes of frames that are handed to the kernel at a time.
const WRITTEN: usize = 64 * 1024;
/// Longest wait for an answer to a connect; then the client turns away and comes again.
const PATIENCE: Duration = Duration::from_secs(5);

impl Order {
    fn pass(&self, index: usize) -> io::Result<&Pass> {
        self.passes.get(index % self.passes.len().max(1)).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// The request of a browser that opens a socket.
    fn upgrade(&self, index: usize) -> io::Result<Vec<u8>> {
        let (Pass { path, token }, key) = (self.pass(index)?, &self.api_key);
        Ok(format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZGFpc2ktd3MtbG9hZC1rZQ==\r\n\
             Sec-WebSocket-Protocol: json.v1\r\n\r\n"
        )
        .into_bytes())
    }
}

/// Sends the request and reads the status of the answer, which is counted.
async fn open(mut socket: TcpStream, order: &Order, index: usize, tally: &Tally) -> io::Result<Option<TcpStream>> {
    tally.one("attempts");
    socket.write_all(&order.upgrade(index)?).await?;
    let mut socket = BufReader::new(socket);
    let (status, _) = status(&mut socket).await?;
    tally.one(&status.to_string());
    Ok((status == 101).then(|| socket.into_inner()))
}

/// One session that many clients open, each taking it over from the one before.
pub(super) async fn connects(order: Arc<Order>, tally: Tally) {
    open_in_a_loop(order, tally, |_| 0).await;
}

/// The same with a session for each.
pub(super) async fn connects_of_many(order: Arc<Order>, tally: Tally) {
    open_in_a_loop(order, tally, |index| index).await;
}

async fn open_in_a_loop(order: Arc<Order>, tally: Tally, pass: fn(usize) -> usize) {
    crowd(order, tally, move |order, tally, index| async move {
        loop {
            let socket = order.dial(index, order.http).await?;
            // The session is dropped as soon as it is had.
            if timeout(PATIENCE, open(socket, &order, pass(index), &tally)).await.is_err() {
                tally.one("no answer");
            }
        }
    })
    .await;
}

/// Many sessions that all come back at once, and again each time that they are refused.
pub(super) async fn storm(order: Arc<Order>, tally: Tally) {
    crowd(order, tally, move |order, tally, index| async move {
        let socket = order.dial(index, order.http).await?;
        match timeout(PATIENCE, open(socket, &order, index, &tally)).await {
            Ok(Ok(Some(socket))) => discard(socket.into_split().0).await,
            Ok(other) => other.map(drop),
            Err(_) => {
                tally.one("no answer");
                Ok(())
            }
        }
    })
    .await;
}

/// Clients that select another chat as often as the limit on messages lets them.
pub(super) async fn select_chats(order: Arc<Order>, tally: Tally) {
    crowd(order, tally, move |order, tally, index| async move {
        let socket = order.dial(index, order.http).await?;
        let Some(socket) = open(socket, &order, index, &tally).await? else { return Ok(()) };
        let (reading, mut writing) = socket.into_split();
        let select = async {
            for turn in 0_u64.. {
                sleep(Duration::from_millis(55)).await;
                let text = format!("{{\"type\":\"select_chat\",\"payload\":{{\"chat_id\":\"{index}-{turn}\"}}}}");
                // Short enough for a length of seven bits; a mask of zeros changes nothing.
                let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap_or_default(), 0, 0, 0, 0];
                frame.extend_from_slice(text.as_bytes());
                writing.write_all(&frame).await?;
                tally.one("selections");
            }
            Ok(())
        };
        tokio::select! { ended = select => ended, ended = discard(reading) => ended }
    })
    .await;
}

/// Pongs that nobody asked for.
pub(super) async fn pongs(order: Arc<Order>, tally: Tally) {
    flood(order, tally, true, &[], &[0x8a, 0x80, 0, 0, 0, 0]).await;
}

/// Pings without end.
pub(super) async fn pings(order: Arc<Order>, tally: Tally) {
    flood(order, tally, true, &[], &[0x89, 0x80, 0, 0, 0, 0]).await;
}

/// Pings as long as they may be, from clients that read no pong.
pub(super) async fn pings_unread(order: Arc<Order>, tally: Tally) {
    const PING: [u8; 131] = {
        let mut ping = [0; 131];
        (ping[0], ping[1]) = (0x89, 0x80 | 125);
        ping
    };
    flood(order, tally, false, &[], &PING).await;
}

/// Binary messages with nothing in them.
pub(super) async fn binary(order: Arc<Order>, tally: Tally) {
    flood(order, tally, true, &[], &[0x82, 0x80, 0, 0, 0, 0]).await;
}

/// A text message that never comes to its end, in pieces with nothing in them.
pub(super) async fn continuations(order: Arc<Order>, tally: Tally) {
    flood(order, tally, true, &[0x01, 0x80, 0, 0, 0, 0], &[0x00, 0x80, 0, 0, 0, 0]).await;
}

async fn flood(order: Arc<Order>, tally: Tally, reads: bool, first: &'static [u8], frame: &'static [u8]) {
    let frames = frame.repeat(WRITTEN / frame.len());
    crowd(order, tally, move |order, tally, index| {
        let frames = frames.clone();
        async move {
            let socket = order.dial(index, order.http).await?;
            let Some(socket) =
                timeout(PATIENCE, open(socket, &order, index, &tally)).await.map_err(|_| io::ErrorKind::TimedOut)??
            else {
                // Refused: nobody comes back at once.
                sleep(Duration::from_secs(1)).await;
                return Ok(());
            };
            let (reading, mut writing) = socket.into_split();
            let write = async {
                writing.write_all(first).await?;
                loop {
                    let written = writing.write(&frames).await? / frame.len();
                    tally.add("frames", written as u64);
                    // Others of this thread want to write as well.
                    tokio::task::yield_now().await;
                }
            };
            if reads {
                tokio::select! { ended = write => ended, ended = discard(reading) => ended }
            } else {
                write.await
            }
        }
    })
    .await;
}

/// Sockets that read nothing after the answer that opens them.
pub(super) async fn unread(order: Arc<Order>, tally: Tally) {
    crowd(order, tally, move |order, tally, index| async move {
        let socket = order.dial_narrow(index, order.http).await?;
        let Some(socket) = open(socket, &order, index, &tally).await? else { return Ok(()) };
        stay(socket).await
    })
    .await;
}

/// Sockets whose client does not even read the answer that opens them.
pub(super) async fn unread_upgrades(order: Arc<Order>, tally: Tally) {
    crowd(order, tally, move |order, tally, index| async move {
        let mut socket = order.dial_narrow(index, order.http).await?;
        tally.one("attempts");
        socket.write_all(&order.upgrade(index)?).await?;
        stay(socket).await
    })
    .await;
}

/// Keeps a connection without reading, until the other side has ended it: a byte that can't be sent any more tells.
async fn stay(mut socket: TcpStream) -> io::Result<()> {
    loop {
        sleep(Duration::from_secs(2)).await;
        // An empty pong, which is allowed at any time.
        socket.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await?;
    }
}
