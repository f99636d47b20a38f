//! A plain subscription to the subjects of events, read from the wire.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BytesMut};
use memchr::memchr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Burst;
use crate::wire;

const HELLO: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false,\"lang\":\"floor\",\"version\":\"0\"}\r\nSUB wa.> 1\r\nPING\r\n";
const BUFFER: usize = 1024 * 1024;

/// The connection to NATS.
pub(super) struct Subscription {
    stream: TcpStream,
    buffer: BytesMut,
    sequence: u64,
}

/// A message of the protocol that begins the buffer.
enum Message {
    /// More bytes are needed.
    Partial,
    /// Something without consequence.
    Other,
    Ping,
    /// An event: its subject, and its payload as a range of the buffer; `length` bytes are used up by it.
    Event {
        subject: Box<str>,
        payload: std::ops::Range<usize>,
        length: usize,
    },
}

impl Subscription {
    /// Connects and subscribes; the server has taken note when this returns.
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await.context("NATS can't be reached")?;
        stream.set_nodelay(true)?;
        stream.write_all(HELLO).await?;
        let mut subscription = Self { stream, buffer: BytesMut::with_capacity(BUFFER), sequence: 0 };
        while !subscription.buffer.ends_with(b"PONG\r\n") {
            subscription.read().await?;
        }
        subscription.buffer.clear();
        Ok(subscription)
    }

    /// All events that there are, by subject; waits for the first.
    pub(super) async fn next(&mut self) -> Result<Vec<Burst>> {
        loop {
            self.read().await?;
            let mut bursts = Vec::new();
            let mut pings = 0;
            loop {
                match parse(&self.buffer)? {
                    Message::Partial => break,
                    Message::Other => self.skip_line(),
                    Message::Ping => {
                        self.skip_line();
                        pings += 1;
                    }
                    Message::Event { subject, payload, length } => {
                        self.sequence += 1;
                        let payload = self.buffer.get(payload).unwrap_or_default();
                        add(&mut bursts, subject, self.sequence, payload);
                        self.buffer.advance(length);
                    }
                }
            }
            for _ in 0..pings {
                self.stream.write_all(b"PONG\r\n").await?;
            }
            if !bursts.is_empty() {
                return Ok(bursts);
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.buffer.reserve(BUFFER / 2);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("NATS has closed the connection");
        }
        Ok(())
    }

    fn skip_line(&mut self) {
        let line = memchr(b'\n', &self.buffer).map_or(self.buffer.len(), |end| end + 1);
        self.buffer.advance(line);
    }
}

/// Appends an event's frame to those of its subject. Subjects that come one after another are the rule, many at once are not: a burst is for one,
/// and of many each has one event.
fn add(bursts: &mut Vec<Burst>, subject: Box<str>, sequence: u64, payload: &[u8]) {
    let text = [format!("{{\"type\":\"event\",\"seq\":{sequence},\"payload\":").as_bytes(), payload, b"}"].concat();
    match bursts.last_mut() {
        Some(burst) if burst.subject == subject => wire::put_unmasked(&mut burst.frames, wire::TEXT, &text),
        _ => {
            let mut frames = Vec::with_capacity(text.len() + 10);
            wire::put_unmasked(&mut frames, wire::TEXT, &text);
            bursts.push(Burst { subject, frames });
        }
    }
}

/// Reads `MSG <subject> <id> [reply] <length>`, or any other line.
fn parse(bytes: &[u8]) -> Result<Message> {
    let Some(end) = memchr(b'\n', bytes) else { return Ok(Message::Partial) };
    let line = bytes.get(..end).unwrap_or_default();
    if line.starts_with(b"PING") {
        return Ok(Message::Ping);
    }
    if line.starts_with(b"-ERR") {
        bail!("NATS says {}", String::from_utf8_lossy(line));
    }
    let Some(fields) = line.strip_prefix(b"MSG ") else { return Ok(Message::Other) };
    let fields = std::str::from_utf8(fields).context("a subject that is no text")?;
    let mut fields = fields.split_ascii_whitespace();
    let subject = fields.next().context("a message without a subject")?.into();
    let size: usize = fields.next_back().context("a message without a length")?.parse()?;
    let (start, stop) = (end + 1, end + 1 + size);
    // A line's end follows the payload.
    let length = stop + 2;
    Ok(if bytes.len() < length { Message::Partial } else { Message::Event { subject, payload: start..stop, length } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_with_and_without_a_reply_subject() {
        for bytes in [&b"MSG wa.a.b.chats 1 2\r\n{}\r\n"[..], b"MSG wa.a.b.chats 1 _INBOX.x 2\r\n{}\r\nMSG"] {
            let Message::Event { subject, payload, length } = parse(bytes).unwrap() else { panic!("no event") };
            assert_eq!((&*subject, &bytes[payload]), ("wa.a.b.chats", &b"{}"[..]));
            assert!(bytes[..length].ends_with(b"{}\r\n"));
        }
    }

    #[test]
    fn no_part_of_a_message_is_taken_for_a_message() {
        let bytes = b"MSG wa.a.b.chats 1 2\r\n{}\r\n";
        for cut in 0..bytes.len() {
            assert!(matches!(parse(&bytes[..cut]).unwrap(), Message::Partial), "{cut}");
        }
    }

    #[test]
    fn events_of_one_subject_become_one_run_of_frames() {
        let mut bursts = Vec::new();
        for (sequence, subject) in ["a", "a", "b", "a"].into_iter().enumerate() {
            add(&mut bursts, subject.into(), sequence as u64, b"{}");
        }
        let subjects: Vec<&str> = bursts.iter().map(|burst| &*burst.subject).collect();
        assert_eq!(subjects, ["a", "b", "a"]);
        let first = wire::parse(&bursts[0].frames).unwrap().unwrap();
        assert_eq!(first.payload, br#"{"type":"event","seq":0,"payload":{}}"#);
        assert!(wire::parse(&bursts[0].frames[first.length..]).unwrap().is_some());
    }
}
