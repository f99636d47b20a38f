//! One channel to a peer: how it is dialled, and whether it is being dialled now.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint, Error},
};

use super::{CONNECT_TIMEOUT, CONNECTION_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW};

/// A channel that connects on its first call, and again on the first call after its connection broke.
#[derive(Debug, Clone)]
pub(super) struct Link {
    channel: Channel,
    dialling_since: Arc<Mutex<Option<Instant>>>,
}

impl Link {
    /// Makes a channel to `host:port`; nothing is sent yet. Must be called on a runtime.
    pub(super) fn open(address: &str) -> Result<Self, Error> {
        let dialling_since = Arc::new(Mutex::new(None));
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector_lazy(Dialler { address: address.into(), since: Arc::clone(&dialling_since) });
        Ok(Self { channel, dialling_since })
    }

    /// The channel, to call on.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Is a connection being made? Then the channel must be left alone: closing it now would begin that anew, for ever if the peer is slow.
    ///
    /// An attempt that nobody waits for any more is not driven on; it stops counting when its time-out is well over.
    pub(super) fn is_dialling(&self) -> bool {
        let since = *self.dialling_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < 2 * CONNECT_TIMEOUT)
    }

    /// Are both the same channel?
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.dialling_since, &other.dialling_since)
    }
}

/// Makes the TCP connections of one channel.
struct Dialler {
    address: Arc<str>,
    since: Arc<Mutex<Option<Instant>>>,
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialling = Dialling::begin(Arc::clone(&self.since));
        let address = Arc::clone(&self.address);
        Box::pin(async move {
            let _dialling = dialling;
            let stream = TcpStream::connect(&*address).await?;
            // Batches are small and wait for an answer: they must not wait for each other's acknowledgements.
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Marks a link as being dialled, however that ends.
struct Dialling(Arc<Mutex<Option<Instant>>>);

impl Dialling {
    fn begin(since: Arc<Mutex<Option<Instant>>>) -> Self {
        *since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Self(since)
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
