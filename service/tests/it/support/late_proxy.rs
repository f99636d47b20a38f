//! A TCP proxy that can hold back what clients sent, and deliver it long after they have gone: the network at its worst.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use daisi_ws_service::runtime::lifecycle::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::sync::DropGuard;

use super::{redis::tasks, wait};

/// The proxy; it ends with this value.
pub(crate) struct LateProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    accepted: AtomicU64,
    ended: AtomicU64,
    /// Connections with a lower number are held back.
    held_below: watch::Sender<u64>,
}

impl LateProxy {
    /// Starts one in front of `upstream`.
    pub(crate) async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { accepted: AtomicU64::new(0), ended: AtomicU64::new(0), held_below: watch::Sender::new(0) });
        let tasks = tasks();
        let stop = tasks.shutdown().hard.clone().drop_guard();
        tasks.spawn("late proxy", accept(listener, upstream, Arc::clone(&shared), tasks.clone()));
        Self { address, shared, _stop: stop }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Holds back what clients send on the connections that stand now. New connections are not touched.
    pub(crate) fn hold(&self) {
        self.shared.held_below.send_replace(self.shared.accepted.load(Ordering::SeqCst));
    }

    /// Delivers what was held back, and waits until the first connections, so many of them, have nothing left to deliver.
    pub(crate) async fn deliver(&self, gone: u64) {
        self.shared.held_below.send_replace(0);
        wait::until("late bytes are delivered", || async { self.shared.ended.load(Ordering::SeqCst) >= gone }).await;
    }
}

async fn accept(listener: TcpListener, upstream: String, shared: Arc<Shared>, tasks: Tasks) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(&upstream).await else { continue };
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let ((from_client, mut to_client), (mut from_server, to_server)) = (client.into_split(), server.into_split());
        tasks.spawn("late proxy: to the server", to_the_server(from_client, to_server, number, Arc::clone(&shared)));
        tasks.spawn("late proxy: to the client", async move {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        });
    }
}

async fn to_the_server(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, number: u64, shared: Arc<Shared>) {
    let (mut bytes, mut held_below) = ([0; 4096], shared.held_below.subscribe());
    while let Ok(length @ 1..) = client.read(&mut bytes).await {
        if held_below.wait_for(|below| number >= *below).await.is_err() || server.write_all(&bytes[..length]).await.is_err() {
            break;
        }
    }
    shared.ended.fetch_add(1, Ordering::SeqCst);
}
