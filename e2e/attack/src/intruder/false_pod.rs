//! Somebody who can write to Redis and says that it is a pod.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::redis;
use crate::strangers::http2::{Kind, frame};

const NAME: &str = "pod-of-nobody";
/// What stands in each event of the audience.
const SECRET: &[u8] = b"Lorem ipsum";
/// Answers to SETTINGS have it.
const ACK: u8 = 1;

/// What it was told.
#[derive(Debug, Default)]
struct Told {
    connections: AtomicU64,
    bytes: AtomicU64,
    events: AtomicU64,
}

/// A server that takes what pods send, and answers no call.
#[derive(Debug)]
pub(crate) struct FalsePod {
    address: SocketAddr,
    told: Arc<Told>,
    _task: JoinSet<()>,
}

impl FalsePod {
    /// Listens.
    ///
    /// # Errors
    /// When it can't.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, told, mut task) = (listener.local_addr()?, Arc::<Told>::default(), JoinSet::new());
        let counts = Arc::clone(&told);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                counts.connections.fetch_add(1, Relaxed);
                connections.spawn(hear(socket, Arc::clone(&counts)));
            }
        });
        Ok(Self { address, told, _task: task })
    }

    /// Announces itself, and puts itself on the routes of these agents.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub(crate) async fn announce(&self, redis: SocketAddr, company: &str, agents: usize) -> Result<()> {
        let record = format!("{{\"address\":\"{}\",\"started_at_ms\":1}}", self.address);
        redis::set(redis, &format!("pod:{NAME}"), record.as_bytes()).await?;
        redis::add_member(redis, "pods", NAME).await?;
        for agent in 0..agents {
            redis::add_member(redis, &format!("route:{company}:agent-{agent}:chats"), NAME).await?;
        }
        Ok(())
    }

    /// What it was told, in words.
    #[must_use]
    pub(crate) fn report(&self) -> String {
        let Told { connections, bytes, events } = &*self.told;
        format!(
            "the false pod was dialled {} times and sent {} bytes with {} events of others",
            connections.load(Relaxed),
            bytes.load(Relaxed),
            events.load(Relaxed)
        )
    }
}

async fn hear(mut socket: TcpStream, told: Arc<Told>) {
    let mut greeting = frame(Kind::Settings, 0, 0, &[]);
    greeting.extend(frame(Kind::Settings, ACK, 0, &[]));
    if socket.write_all(&greeting).await.is_err() {
        return;
    }
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        told.bytes.fetch_add(read as u64, Relaxed);
        // One that stands across two reads is not counted: that there are any says enough.
        let events = buffer[..read].windows(SECRET.len()).filter(|window| *window == SECRET).count();
        told.events.fetch_add(events as u64, Relaxed);
    }
}
