//! One tab of a browser with its socket: reads, writes, and notes what it sees.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use daisi_ws_domain::session::LockOwner;
use daisi_ws_service::application::admission::connect::Admission;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    time::{Instant, interval_at},
};

use super::frames::{self, Frame};
use crate::{
    history::{End, Gap, Moment, Seen, Selected, Socket},
    invariants::written_late,
    record::Record,
};

/// How often a client asks where it stands.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// What a tab is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Select a chat.
    Select(u8),
    /// Read nothing, or go on.
    Stall(bool),
    /// Close it, with a goodbye or without.
    Leave { politely: bool },
}

/// A tab whose socket is open.
pub(super) struct Client {
    pub(super) pipe: DuplexStream,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    /// Its place in the history.
    pub(super) socket: usize,
    /// Nothing may be written past the life of the socket's lock.
    pub(super) strict: bool,
    /// Where it says that it was asked to move, and within which time.
    pub(super) ask: mpsc::UnboundedSender<Duration>,
    pub(super) record: Arc<Record>,
}

#[derive(Deserialize)]
struct Message<'a> {
    r#type: &'a str,
    #[serde(default)]
    payload: serde_json::Value,
}

/// Notes a socket that was admitted; returns its place in the history.
pub(super) fn admitted(record: &Record, of: Socket, admission: &Admission) -> usize {
    let moment = record.moment();
    let owner = admission.session().owner().to_string();
    record.note(format_args!("person {} is admitted as {owner}", of.person));
    let mut inner = record.open();
    inner.history.sockets.push(Socket { owner, admitted: moment, ..of });
    inner.history.sockets.len() - 1
}

impl Client {
    /// Lives until the socket ends; how it did.
    pub(super) async fn run(mut self) -> End {
        let (mut read, mut stalled) = (BytesMut::new(), false);
        let mut ask = interval_at(Instant::now() + ASK_EVERY, ASK_EVERY);
        let end = loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Leave { politely }) => {
                        if politely {
                            self.pipe.write_all(&frames::close(1000)).await.ok();
                        }
                        break End::Left;
                    }
                    Some(Order::Stall(stall)) => {
                        stalled = stall;
                        self.note_stall(stall);
                    }
                    Some(Order::Select(chat)) => self.select(chat).await,
                    None => break End::Left,
                },
                _ = ask.tick() => {
                    self.pipe.write_all(&frames::text(r#"{"type":"ready"}"#)).await.ok();
                }
                bytes = self.pipe.read_buf(&mut read), if !stalled => match bytes {
                    Ok(1..) => {
                        if let Some(end) = self.hear(&mut read).await {
                            break end;
                        }
                    }
                    Ok(0) | Err(_) => break End::Broken,
                },
            }
        };
        let moment = self.record.moment();
        self.record.open().history.sockets[self.socket].ended = Some((moment, end));
        self.record.note(format_args!("socket {} ends: {end:?}", self.socket));
        end
    }

    fn note_stall(&self, stall: bool) {
        let moment = self.record.moment();
        self.record.note(format_args!("socket {} stalls: {stall}", self.socket));
        let mut inner = self.record.open();
        let stalls = &mut inner.history.sockets[self.socket].stalls;
        match (stall, stalls.last_mut()) {
            (true, Some((_, None))) | (false, None) => {}
            (true, _) => stalls.push((moment, None)),
            (false, Some((_, until))) => *until = until.or(Some(moment)),
        }
    }

    async fn select(&mut self, chat: u8) {
        let moment = self.record.moment();
        {
            let mut inner = self.record.open();
            let socket = &mut inner.history.sockets[self.socket];
            socket.asked.insert(chat);
            socket.unanswered += 1;
            if let Some(selected) = socket.chats.last_mut() {
                selected.until.get_or_insert(moment);
            }
        }
        self.record.note(format_args!("socket {} asks for chat {chat}", self.socket));
        let text = format!(r#"{{"type":"select_chat","payload":{{"chat_id":"k.{chat}:x"}}}}"#);
        self.pipe.write_all(&frames::text(&text)).await.ok();
    }

    /// Goes through what was read.
    async fn hear(&mut self, read: &mut BytesMut) -> Option<End> {
        while let Some(frame) = frames::next(read) {
            match frame {
                Frame::Text(text) => self.see(&text),
                Frame::Ping(payload) => {
                    self.pipe.write_all(&frames::pong(&payload)).await.ok();
                }
                Frame::Pong => {}
                Frame::Invalid(why) => self.nonsense(why.to_owned()),
                Frame::Close(code) => {
                    self.pipe.write_all(&frames::close(code.unwrap_or(1000))).await.ok();
                    return Some(code.map_or(End::Broken, End::Closed));
                }
            }
        }
        None
    }

    fn see(&self, text: &str) {
        let moment = self.record.moment();
        self.record.note(format_args!("socket {} reads {text}", self.socket));
        if let Some((seen, safe)) = event(text) {
            let mut inner = self.record.open();
            inner.add("deliveries", 1);
            inner.add("deliveries of what was read again", u64::from(seen.replayed));
            let socket = &mut inner.history.sockets[self.socket];
            socket.events.push((moment, seen));
            socket.places.extend(safe.map(|safe| (moment, safe)));
            drop(inner);
            self.check_lock(moment.at);
            return;
        }
        let Ok(message) = serde_json::from_str::<Message<'_>>(text) else { return self.nonsense(text.to_owned()) };
        let chat = || message.payload["chat_id"].as_str().and_then(chat_number);
        let mut inner = self.record.open();
        match message.r#type {
            "ready" => {
                let place = message.payload["safe"].as_u64();
                inner.history.sockets[self.socket].places.extend(place.map(|safe| (moment, safe)));
                if message.payload["pod_id"].is_null() {
                    return;
                }
                if let Some(resumed) = message.payload["resumed"].as_bool() {
                    inner.add(if resumed { "resumed" } else { "not resumed" }, 1);
                }
                let restored = chat().map(|chat| Selected { chat, from: moment, until: None });
                if restored.is_some() {
                    inner.add("chats restored", 1);
                }
                let socket = &mut inner.history.sockets[self.socket];
                socket.ready = Some(moment);
                socket.stream = message.payload["stream"].as_str().map(str::to_owned);
                let replayed = message.payload["replayed"].as_u64();
                socket.resumed = replayed.and_then(|replayed| usize::try_from(replayed).ok());
                socket.asked.extend(restored.map(|selected| selected.chat));
                socket.chats.extend(restored);
            }
            "chat_selected" => {
                inner.add("chats selected", 1);
                let socket = &mut inner.history.sockets[self.socket];
                let until = until_the_next(socket, moment);
                let selected = chat().map(|chat| Selected { chat, from: moment, until });
                socket.chats.extend(selected);
            }
            "gap" => {
                inner.add("gaps", 1);
                let number = |key: &str| message.payload[key].as_u64();
                let gap = Gap {
                    range: number("first_seq").zip(number("last_seq")),
                    dropped: number("dropped"),
                    reason: message.payload["reason"].as_str().unwrap_or_default().to_owned(),
                };
                inner.history.sockets[self.socket].gaps.push((moment, gap));
            }
            "error" if message.payload["code"] == "SubscriptionFailure" => {
                inner.add("chats refused", 1);
                // It has the one before still.
                let socket = &mut inner.history.sockets[self.socket];
                let until = until_the_next(socket, moment);
                let before = socket.chats.last().map(|selected| Selected { chat: selected.chat, from: moment, until });
                socket.chats.extend(before);
            }
            "error" => {}
            "move" => {
                let within = message.payload["within_ms"].as_u64().map(Duration::from_millis);
                drop(inner);
                match within {
                    Some(within) => drop(self.ask.send(within)),
                    None => self.nonsense(text.to_owned()),
                }
            }
            _ => {
                drop(inner);
                self.nonsense(text.to_owned());
            }
        }
    }

    fn check_lock(&self, now: Duration) {
        if !self.strict {
            return;
        }
        let inner = self.record.open();
        let socket = &inner.history.sockets[self.socket];
        let ends = LockOwner::parse(&socket.owner).ok().and_then(|owner| inner.holders.life(&owner));
        let wrong = ends.and_then(|ends| written_late(self.socket, socket, ends, now));
        drop(inner);
        if let Some((invariant, what)) = wrong {
            self.record.breach(invariant, what);
        }
    }

    fn nonsense(&self, what: String) {
        self.record.open().history.sockets[self.socket].nonsense.push(what);
    }
}

/// Notes an answer. The chat that it is about is selected until now where another was asked for meanwhile: nobody knows when the
/// service hears of that.
fn until_the_next(socket: &mut Socket, now: Moment) -> Option<Moment> {
    socket.unanswered = socket.unanswered.saturating_sub(1);
    (socket.unanswered > 0).then_some(now)
}

fn chat_number(chat: &str) -> Option<u8> {
    chat.strip_prefix("k.")?.strip_suffix(":x")?.parse().ok()
}

/// The payload of an event with these numbers.
pub(super) fn payload(number: u64, topic: u64) -> String {
    format!(r#"{{"n":{number},"t":{topic}}}"#)
}

/// Reads the frame of such an event, with the place that it tells: most of what comes is one.
fn event(text: &str) -> Option<(Seen, Option<u64>)> {
    let rest = text.strip_prefix(r#"{"type":"event","seq":"#)?;
    let (envelope, rest) = rest.split_once(r#","payload":{"n":"#)?;
    let (seq, envelope) = envelope.split_once(',').unwrap_or((envelope, ""));
    let safe = envelope.strip_prefix(r#""safe":"#).and_then(|rest| rest.split(',').next()).and_then(|safe| safe.parse().ok());
    let (number, rest) = rest.split_once(r#","t":"#)?;
    let topic = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let replayed = envelope.contains(r#""replayed":true"#);
    Some((Seen { seq: seq.parse().ok()?, number: number.parse().ok()?, topic: topic.parse().ok()?, replayed }, safe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_is_selected_for_certain_only_while_no_other_is_asked_for() {
        let (mut socket, now) = (Socket { unanswered: 2, ..Socket::default() }, Moment::default());
        assert_eq!([until_the_next(&mut socket, now), until_the_next(&mut socket, now)], [Some(now), None]);
    }

    #[test]
    fn events_are_read_as_they_are_written() {
        let frame =
            format!(r#"{{"type":"event","seq":7,"payload":{}}}"#, payload(7, 258).replace('}', r#","event_type":"chat"}"#));
        let seen = Seen { seq: 7, number: 7, topic: 258, replayed: false };
        assert_eq!(event(&frame), Some((seen, None)));
        for (envelope, safe) in [("", None), (r#","safe":5"#, Some(5)), (r#","safe":5,"replayed":true"#, Some(5))] {
            let frame = frame.replace(r#""seq":7"#, &format!(r#""seq":7{envelope}"#));
            let seen = Seen { replayed: envelope.contains("replayed"), ..seen };
            assert_eq!(event(&frame), Some((seen, safe)), "{frame}");
        }
        assert_eq!(event(r#"{"type":"ready","payload":{"pod_id":"p"}}"#), None);
        assert_eq!(chat_number("k.2:x"), Some(2));
    }
}
