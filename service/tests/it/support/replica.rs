//! Whoever answers direct gets in place of a stream's replicas: a client of the server that speaks its protocol by hand, as no
//! client library sends a status.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinHandle,
};

/// What direct gets of the default stream come to.
const DIRECT: &str = "$JS.API.DIRECT.GET.wa_stream";

/// One message of an answer: its header as it goes over the wire, and its payload.
pub(crate) type Said = (String, Vec<u8>);

/// A message that is an event.
pub(crate) fn event(stream: &str, subject: &str, seq: u64, before: u64, payload: &[u8]) -> Said {
    let header = format!(
        "NATS/1.0\r\nNats-Stream: {stream}\r\nNats-Subject: {subject}\r\nNats-Sequence: {seq}\r\n\
         Nats-Time-Stamp: 2026-11-30T10:00:00.123456789Z\r\nNats-Num-Pending: 7\r\nNats-Last-Sequence: {before}\r\n\r\n"
    );
    (header, payload.to_vec())
}

/// The end of an answer, after which there would be so many more.
pub(crate) fn end(left: u64) -> Said {
    (format!("NATS/1.0 204 EOB\r\nNats-Num-Pending: {left}\r\nNats-Last-Sequence: 1\r\n\r\n"), Vec::new())
}

/// There is nothing.
pub(crate) fn nothing() -> Said {
    ("NATS/1.0 404 Message Not Found\r\n\r\n".to_owned(), Vec::new())
}

/// Answers all direct gets until it is dropped.
pub(crate) struct Replica {
    asked: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Replica {
    /// Begins to answer; `answer` is told after which sequence, and how many events at most.
    pub(crate) async fn start(url: &str, answer: impl Fn(u64, u64) -> Vec<Said> + Send + Sync + 'static) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).await.unwrap();
        let mut stream = BufReader::new(stream);
        let hello = format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {DIRECT} 1\r\nPING\r\n");
        stream.get_mut().write_all(hello.as_bytes()).await.unwrap();
        let mut line = String::new();
        while line.trim_end() != "PONG" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        #[expect(clippy::disallowed_methods, reason = "it is aborted with its value")]
        let task = tokio::spawn(async move { while serve(&mut stream, &answer, &counted).await.is_some() {} });
        Self { asked, task }
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers one line of the server's; none when it has ended.
async fn serve(stream: &mut BufReader<TcpStream>, answer: &impl Fn(u64, u64) -> Vec<Said>, asked: &AtomicU64) -> Option<()> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["PING"] => stream.get_mut().write_all(b"PONG\r\n").await.ok(),
        ["MSG", _, _, inbox, length] => {
            let mut question = vec![0; length.parse::<usize>().ok()? + 2];
            stream.read_exact(&mut question).await.ok()?;
            asked.fetch_add(1, Ordering::Relaxed);
            let question: serde_json::Value = serde_json::from_slice(&question).ok()?;
            for (header, payload) in answer(question["seq"].as_u64()? - 1, question["batch"].as_u64()?) {
                let said = format!("HPUB {inbox} {} {}\r\n{header}", header.len(), header.len() + payload.len());
                stream.get_mut().write_all(&[said.as_bytes(), &payload, b"\r\n"].concat()).await.ok()?;
            }
            Some(())
        }
        _ => Some(()),
    }
}
