//! One connection: served by hyper until it ends, has to leave, or becomes a socket.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderValue, header},
    response::IntoResponse as _,
};
use futures_util::future::Either;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    deferred_upgrade::{DeferredUpgrade, HeldIo},
    intake::Intake,
    limits::{MAX_HEAD_BYTES, MAX_HEADERS},
    places::Place,
    proxy_protocol,
    refusal::Refusal,
};
use crate::{
    adapters::http::{error::HttpError, forwarded::Peer, request_id::RequestId},
    runtime::workers::Worker,
    telemetry::Chain,
};

/// Longest time for a request's head to arrive, and longest idle time between two requests: a connection that asks for nothing
/// must not keep one out that does.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long a connection that is no socket is asked to end: anyone who never comes to an end must not stay for ever.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long a request under way may take to end after that, or after the server was told to stop.
const LAST_REQUEST: Duration = Duration::from_secs(10);
/// How long, and for how many bytes, a connection is listened to behind a refusal.
const LAST_WORDS: Duration = Duration::from_secs(2);
const MAX_REST: usize = 1 << 20;

/// A connection that has come, and what it is served with.
pub(crate) struct Arrival {
    pub(crate) peer: Peer,
    pub(crate) place: Arc<Place>,
    pub(crate) app: Router,
    pub(crate) intake: Intake,
    pub(crate) stop: CancellationToken,
    /// Where it is served.
    pub(crate) worker: Arc<Worker>,
}

/// Serves one connection until it ends, has to leave, or becomes a socket.
pub(crate) async fn serve(stream: TcpStream, arrival: Arrival) {
    let place = Arc::clone(&arrival.place);
    tokio::select! {
        biased;
        // What has arrived is heard first: it may ask for something.
        () = serve_in_place(stream, arrival) => {}
        // Another took its place: nothing that it has is worth a word.
        () = place.has_to_leave() => {}
    }
    place.give_up();
}

async fn serve_in_place(mut stream: TcpStream, mut arrival: Arrival) {
    if arrival.intake.is_proxied(arrival.peer) {
        let Some(client) = introduced(&mut stream).await else { return };
        if let Some(client) = client {
            arrival.peer = Peer(client);
            arrival.place.belongs_to(arrival.intake.share_of_client(arrival.peer), arrival.intake.bounds());
        }
    }
    let Arrival { peer, place, app, stop, worker, .. } = arrival;
    let (upgrade, app) = (DeferredUpgrade::on(worker), TowerToHyperService::new(app));
    let stream = HeldIo::new(stream);
    let news = stream.news();
    let service = service_fn(|mut request: Request<Incoming>| {
        if !news.swap(false, Ordering::Relaxed) {
            return Either::Left(std::future::ready(Ok(too_early())));
        }
        place.asked();
        let extensions = request.extensions_mut();
        extensions.insert(upgrade.clone());
        extensions.insert(peer);
        extensions.insert(Arc::clone(&place));
        Either::Right(app.call(request))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = stop.cancelled() => None,
        () = sleep(LIFETIME) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            let Ok(ended) = timeout(LAST_REQUEST, &mut connection).await else { return };
            ended
        }
    };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if let Err(error) = ended {
        // The client broke off, stalled or spoke no HTTP: its business, and common.
        tracing::debug!(error = %Chain(&error), "a connection ended badly");
        if let Some(refusal) = Refusal::of_silence(&error, &parts.read_buf) {
            stream.refuse(refusal);
        }
    } else if !stream.has_refused() {
        return upgrade.complete(stream, parts.read_buf);
    }
    if stream.has_refused() {
        let _ = timeout(LAST_WORDS, part(stream)).await;
    }
}

/// What is told to who sends the next request before it has the answer: hundreds of requests fit into what is read at once, and
/// to answer them would keep the thread from others. Nothing that is in use sends them so.
fn too_early() -> axum::response::Response {
    let refusal = HttpError::bad_request("send a request when the one before is answered")
        .with_header(header::CONNECTION, HeaderValue::from_static("close"));
    RequestId::fresh().on(refusal.into_response())
}

/// For whom the proxy speaks; none within, if for itself. None at all: it does not say, and the connection ends.
async fn introduced(stream: &mut TcpStream) -> Option<Option<IpAddr>> {
    match timeout(HEADER_TIMEOUT, proxy_protocol::read(stream)).await {
        Ok(Ok(client)) => Some(client),
        Ok(Err(error)) => {
            tracing::debug!(error = %Chain(&error), "a trusted proxy did not say for whom it speaks");
            None
        }
        Err(_) => None,
    }
}

/// Ends a connection behind a refusal. What still comes is read and thrown away, within bounds: closing before it was read would
/// reset the connection, and the client would see that instead of the refusal.
async fn part(mut stream: HeldIo) {
    let mut rest = [0; 4096];
    let mut left = MAX_REST;
    if stream.shutdown().await.is_err() {
        return;
    }
    while left > 0
        && let Ok(read) = stream.read(&mut rest).await
        && read > 0
    {
        left = left.saturating_sub(read);
    }
}
