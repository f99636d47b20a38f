//! Events from NATS, read from the wire: of a plain subscription to their subjects, or of a durable consumer, and then
//! acknowledged.

use std::{net::SocketAddr, ops::Range};

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BytesMut};
use memchr::memchr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::burst::Burst;
use crate::{
    stream::{FLOORS_DURABLE, STREAM},
    wire,
};

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false,\"lang\":\"floor\",\"version\":\"0\"}";
/// Where the durable's events are sent to.
const INBOX: &str = "_INBOX.floor";
/// Events asked for in one request; asked for again when half of them have come.
const ASKED: usize = 4096;
/// Longer than any run: a request that ended would be answered with something else than events.
const EXPIRES_NANOS: u64 = 86_400_000_000_000;
const BUFFER: usize = 1024 * 1024;

/// The connection to NATS.
pub(super) struct Subscription {
    stream: TcpStream,
    buffer: BytesMut,
    sequence: u64,
    /// Events that the durable was asked for and has not sent; none for a plain subscription.
    outstanding: Option<usize>,
}

/// A message of the protocol that begins the buffer.
enum Message {
    /// More bytes are needed.
    Partial,
    /// Something without consequence.
    Other,
    Ping,
    /// An event: its subject, and where in the buffer the subject for replies and the payload are; `length` bytes are used up by
    /// it.
    Event {
        subject: Box<str>,
        reply: Range<usize>,
        payload: Range<usize>,
        length: usize,
    },
}

impl Subscription {
    /// Connects and subscribes; the server has taken note when this returns.
    pub(super) async fn open(address: SocketAddr, durable: bool) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await.context("NATS can't be reached")?;
        stream.set_nodelay(true)?;
        let subject = if durable { INBOX } else { "wa.>" };
        let mut hello = format!("{CONNECT}\r\nSUB {subject} 1\r\n");
        if durable {
            hello.push_str(&request(ASKED));
        }
        hello.push_str("PING\r\n");
        stream.write_all(hello.as_bytes()).await?;
        let outstanding = durable.then_some(ASKED);
        let mut subscription = Self { stream, buffer: BytesMut::with_capacity(BUFFER), sequence: 0, outstanding };
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
            let mut answer: Vec<u8> = Vec::new();
            loop {
                match parse(&self.buffer)? {
                    Message::Partial => break,
                    Message::Other => self.skip_line(),
                    Message::Ping => {
                        self.skip_line();
                        answer.extend_from_slice(b"PONG\r\n");
                    }
                    Message::Event { subject, reply, payload, length } => {
                        self.sequence += 1;
                        if let Some(outstanding) = &mut self.outstanding {
                            *outstanding -= 1;
                            let reply = self.buffer.get(reply).unwrap_or_default();
                            [b"PUB ", reply, b" 4\r\n+ACK\r\n"].iter().for_each(|part| answer.extend_from_slice(part));
                        }
                        let payload = self.buffer.get(payload).unwrap_or_default();
                        add(&mut bursts, subject, self.sequence, payload);
                        self.buffer.advance(length);
                    }
                }
            }
            if let Some(outstanding) = self.outstanding.as_mut().filter(|outstanding| **outstanding < ASKED / 2) {
                answer.extend_from_slice(request(ASKED - *outstanding).as_bytes());
                *outstanding = ASKED;
            }
            self.stream.write_all(&answer).await?;
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

/// Asks the durable for so many events.
fn request(events: usize) -> String {
    let body = format!("{{\"batch\":{events},\"expires\":{EXPIRES_NANOS}}}");
    format!("PUB $JS.API.CONSUMER.MSG.NEXT.{STREAM}.{FLOORS_DURABLE} {INBOX} {}\r\n{body}\r\n", body.len())
}

/// Appends an event's frame to those of its subject. Subjects that come one after another are the rule, many at once are not: a
/// burst is for one, and of many each has one event.
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
    if !line.starts_with(b"MSG ") {
        return Ok(Message::Other);
    }
    let line = std::str::from_utf8(line).context("a subject that is no text")?;
    let mut fields = line.split_ascii_whitespace().skip(1);
    let subject = fields.next().context("a message without a subject")?.into();
    let reply = fields.nth(1).unwrap_or_default();
    // Without one, what stands there is the length.
    let size: usize = fields.next().unwrap_or(reply).parse().context("a message without a length")?;
    let reply = line.find(reply).map_or(0..0, |start| start..start + reply.len());
    let (start, stop) = (end + 1, end + 1 + size);
    // A line's end follows the payload.
    let length = stop + 2;
    Ok(if bytes.len() < length { Message::Partial } else { Message::Event { subject, reply, payload: start..stop, length } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_with_and_without_a_reply_subject() {
        for bytes in [&b"MSG wa.a.b.chats 1 2\r\n{}\r\n"[..], b"MSG wa.a.b.chats 1 _INBOX.x 2\r\n{}\r\nMSG"] {
            let Message::Event { subject, payload, length, .. } = parse(bytes).unwrap() else { panic!("no event") };
            assert_eq!((&*subject, &bytes[payload]), ("wa.a.b.chats", &b"{}"[..]));
            assert!(bytes[..length].ends_with(b"{}\r\n"));
        }
    }

    #[test]
    fn an_event_of_the_durable_says_where_it_is_acknowledged() {
        let bytes = b"MSG wa.a.b.chats 1 $JS.ACK.s.floor.1.2.3.4.5 2\r\n{}\r\n";
        let Message::Event { reply, .. } = parse(bytes).unwrap() else { panic!("no event") };
        assert_eq!(&bytes[reply], b"$JS.ACK.s.floor.1.2.3.4.5");
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
