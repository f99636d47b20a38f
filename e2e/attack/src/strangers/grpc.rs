//! Strangers at the port of pods.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use tokio::{io::AsyncWriteExt as _, net::tcp::OwnedWriteHalf, time::sleep};

use super::{
    crowd::{crowd, crowd_of, discard},
    http,
    http2::{END_HEADERS, END_STREAM, Kind, PREFACE, call, frame, header, message},
    order::Order,
    tally::Tally,
};

/// Streams of a connection that are opened by strangers who want many.
const STREAMS: usize = 200;
/// Calls of pods that strangers make.
const PUSH: &str = "/dws_message_fwd.MessageForwardingService/PushEvent";
/// The call that stays open.
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// The largest number of a stream, as it is odd.
const LAST_STREAM: u32 = (1 << 31) - 1;

/// Connects, greets, and does this while all that comes is read and forgotten.
async fn connected<F>(order: &Order, index: usize, tally: &Tally, work: impl FnOnce(OwnedWriteHalf) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send,
{
    let mut socket = order.dial(index, order.grpc).await?;
    socket.write_all(PREFACE).await?;
    tally.one("opened");
    let (reading, writing) = socket.into_split();
    tokio::select! { ended = work(writing) => ended, ended = discard(reading) => ended }
}

/// Connects, greets, and does this without reading anything.
async fn connected_deaf<F>(order: &Order, index: usize, tally: &Tally, work: impl FnOnce(OwnedWriteHalf) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send,
{
    let mut socket = order.dial_narrow(index, order.grpc).await?;
    socket.write_all(PREFACE).await?;
    tally.one("opened");
    let (_unread, writing) = socket.into_split();
    work(writing).await
}

/// Connections that say nothing.
pub(super) async fn idle(order: Arc<Order>, tally: Tally) {
    let to = order.grpc;
    http::idle_at(order, to, tally).await;
}

/// Settings without end, whose answers nobody reads.
pub(super) async fn settings_unread(order: Arc<Order>, tally: Tally) {
    unread(order, tally, |_| frame(Kind::Settings, 0, 0, &[]).repeat(1000)).await;
}

/// Calls without a proof, whose refusals nobody reads.
pub(super) async fn calls_unread(order: Arc<Order>, tally: Tally) {
    unread(order, tally, |id| {
        let mut bytes = frame(Kind::Headers, END_HEADERS, id, &call(PUSH));
        bytes.extend(frame(Kind::Data, END_STREAM, id, &message(false, &[])));
        bytes
    })
    .await;
}

async fn unread(order: Arc<Order>, tally: Tally, bytes: fn(u32) -> Vec<u8>) {
    crowd(order, tally, move |order, tally, index| async move {
        connected_deaf(&order, index, &tally, |mut writing| {
            let tally = tally.clone();
            async move {
                for id in (1..LAST_STREAM).step_by(2) {
                    writing.write_all(&bytes(id)).await?;
                    tally.one("written");
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
        })
        .await
    })
    .await;
}

/// Connections that ask once a second whether the other side is there, and nothing else.
pub(super) async fn pings(order: Arc<Order>, tally: Tally) {
    crowd(order, tally, move |order, tally, index| async move {
        connected(&order, index, &tally, |mut writing| async move {
            loop {
                writing.write_all(&frame(Kind::Ping, 0, 0, &[0; 8])).await?;
                sleep(Duration::from_secs(1)).await;
            }
        })
        .await
    })
    .await;
}

/// The same as often as the connection takes.
pub(super) async fn ping_flood(order: Arc<Order>, tally: Tally) {
    repeat(order, tally, Vec::new(), &frame(Kind::Ping, 0, 0, &[0; 8]), 4096).await;
}

/// Settings without end, each of which wants an answer.
pub(super) async fn settings(order: Arc<Order>, tally: Tally) {
    repeat(order, tally, Vec::new(), &frame(Kind::Settings, 0, 0, &[]), 4096).await;
}

/// A header block that never comes to its end.
pub(super) async fn continuations(order: Arc<Order>, tally: Tally) {
    let mut field = Vec::new();
    header(&mut field, "x", "y");
    let first = frame(Kind::Headers, 0, 1, &call(PUSH));
    repeat(order, tally, first, &frame(Kind::Continuation, 0, 1, &field), 1000).await;
}

/// Sends `first`, and then a frame without end, so many at a time.
async fn repeat(order: Arc<Order>, tally: Tally, first: Vec<u8>, frame: &[u8], times: u32) {
    let (first, frames) = (Arc::new(first), Arc::new(frame.repeat(times as usize)));
    crowd(order, tally, move |order, tally, index| {
        let (first, frames) = (Arc::clone(&first), Arc::clone(&frames));
        async move {
            connected(&order, index, &tally, |mut writing| {
                let tally = tally.clone();
                async move {
                    writing.write_all(&first).await?;
                    loop {
                        writing.write_all(&frames).await?;
                        tally.add("frames", u64::from(times));
                        tokio::task::yield_now().await;
                    }
                }
            })
            .await
        }
    })
    .await;
}

/// Calls that nobody proves and that stay open: `count` of them, two hundred on a connection.
pub(super) async fn watches(order: Arc<Order>, tally: Tally) {
    let connections = order.count.div_ceil(STREAMS);
    crowd_of(connections, order, tally, move |order, tally, index| async move {
        connected(&order, index, &tally, |mut writing| {
            let tally = tally.clone();
            async move {
                for stream in 0..STREAMS {
                    let id = u32::try_from(stream * 2 + 1).unwrap_or(LAST_STREAM);
                    let mut bytes = frame(Kind::Headers, END_HEADERS, id, &call(WATCH));
                    bytes.extend(frame(Kind::Data, END_STREAM, id, &message(false, &[])));
                    writing.write_all(&bytes).await?;
                    tally.one("calls");
                    if stream % 50 == 49 {
                        // All connections have their turn.
                        sleep(Duration::from_millis(10)).await;
                    }
                }
                loop {
                    sleep(Duration::from_secs(1)).await;
                    writing.write_all(&frame(Kind::Ping, 0, 0, &[0; 8])).await?;
                }
            }
        })
        .await
    })
    .await;
}

/// Calls that are taken back as soon as they are made.
pub(super) async fn resets(order: Arc<Order>, tally: Tally) {
    each_stream(order, tally, |id| {
        let mut bytes = frame(Kind::Headers, END_HEADERS, id, &call(PUSH));
        bytes.extend(frame(Kind::Reset, 0, id, &8_u32.to_be_bytes()));
        bytes
    })
    .await;
}

/// Calls with a megabyte of metadata.
pub(super) async fn metadata(order: Arc<Order>, tally: Tally) {
    let mut block = call(PUSH);
    for number in 0..250 {
        header(&mut block, &format!("x-filler-{number}"), &"y".repeat(4000));
    }
    each_stream(order, tally, move |id| {
        let mut pieces = block.chunks(16_000).peekable();
        let mut bytes = frame(Kind::Headers, 0, id, pieces.next().unwrap_or_default());
        while let Some(piece) = pieces.next() {
            bytes.extend(frame(Kind::Continuation, if pieces.peek().is_none() { END_HEADERS } else { 0 }, id, piece));
        }
        bytes.extend(frame(Kind::Data, END_STREAM, id, &message(false, &[])));
        bytes
    })
    .await;
}

/// Calls whose few bytes become very many when they are unpacked.
pub(super) async fn bombs(order: Arc<Order>, tally: Tally) {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..1024 {
        // Into memory: can't fail.
        let _ = packed.write_all(&[0; 64 * 1024]);
    }
    let (mut block, packed) = (call(PUSH), message(true, &packed.finish().unwrap_or_default()));
    header(&mut block, "grpc-encoding", "gzip");
    each_stream(order, tally, move |id| {
        let mut bytes = frame(Kind::Headers, END_HEADERS, id, &block);
        let mut pieces = packed.chunks(16_000).peekable();
        while let Some(piece) = pieces.next() {
            bytes.extend(frame(Kind::Data, if pieces.peek().is_none() { END_STREAM } else { 0 }, id, piece));
        }
        bytes
    })
    .await;
}

/// Calls without a proof whose message is as large as the window allows, and never comes to its end.
pub(super) async fn bodies(order: Arc<Order>, tally: Tally) {
    let mut body = message(false, &[0; 16_000]);
    // It says that four megabytes follow.
    body[1..5].copy_from_slice(&(4_u32 << 20).to_be_bytes());
    each_stream(order, tally, move |id| {
        let mut bytes = frame(Kind::Headers, END_HEADERS, id, &call(PUSH));
        bytes.extend(frame(Kind::Data, 0, id, &body));
        bytes
    })
    .await;
}

async fn each_stream(order: Arc<Order>, tally: Tally, bytes: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) {
    let bytes = Arc::new(bytes);
    crowd(order, tally, move |order, tally, index| {
        let bytes = Arc::clone(&bytes);
        async move {
            connected(&order, index, &tally, |mut writing| {
                let tally = tally.clone();
                async move {
                    for id in (1..LAST_STREAM).step_by(2) {
                        writing.write_all(&bytes(id)).await?;
                        tally.one("calls");
                        if id % 16 == 1 {
                            tokio::task::yield_now().await;
                        }
                    }
                    Ok(())
                }
            })
            .await
        }
    })
    .await;
}
