//! An event of the stream: where it goes, and its untouched bytes.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{
    Deserialize,
    de::{Deserializer as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    ids::{AgentId, ChatId, CompanyId, IdError},
    route::{RouteKey, Scope},
};

crate::words! {
    /// What an event is; the closed set behind every `kind` label and `event_type`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum EventKind {
        /// A chat of the list changed.
        Chat = "chat",
        /// A message in one chat.
        Message = "message",
        /// An agent changed; for admins.
        Agent = "agent",
    }
}

/// Why a subject names no event of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The first token is another one.
    #[error("the subject does not begin with the configured prefix")]
    Prefix,
    /// Too few tokens, or a kind that does not exist.
    #[error("the subject is none of <prefix>.<company>.<agent>.(chats | messages.<chat_id> | agents)")]
    Shape,
    /// A token is no id.
    #[error("the subject has a bad id: {0}")]
    Id(#[from] IdError),
}

/// The routes of an event: most often one, which then costs no memory of its own.
pub type Routes = SmallVec<[RouteKey; 1]>;

/// Whom an event is for, as its subject says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `….chats`: for every session of the company and agent.
    Chats {
        /// The company that the subject names.
        company: CompanyId,
        /// The agent that the subject names.
        agent: AgentId,
    },
    /// `….messages.{chat_id}`: for those of them that selected the chat.
    Messages {
        /// The company that the subject names.
        company: CompanyId,
        /// The agent that the subject names.
        agent: AgentId,
        /// The rest of the subject, dots included.
        chat: ChatId,
    },
    /// `….agents`: for every admin whose restriction covers company and agent.
    Agents {
        /// The company that the subject names.
        company: CompanyId,
        /// The agent that the subject names.
        agent: AgentId,
    },
}

impl Address {
    /// Reads `{prefix}.{company}.{agent}.(chats | messages.{chat_id} | agents)`. The chat id is the whole tail, dots included.
    ///
    /// # Errors
    /// When the subject has another prefix or shape, or a token that is no id.
    pub fn parse(prefix: &str, subject: &str) -> Result<Self, SubjectError> {
        let rest = subject.strip_prefix(prefix).and_then(|r| r.strip_prefix('.')).ok_or(SubjectError::Prefix)?;
        let mut tokens = rest.splitn(4, '.');
        let (Some(company), Some(agent), Some(kind)) = (tokens.next(), tokens.next(), tokens.next()) else {
            return Err(SubjectError::Shape);
        };
        let tail = tokens.next();
        let (company, agent) = (CompanyId::parse(company)?, AgentId::parse(agent)?);
        match (kind, tail) {
            ("chats", None) => Ok(Self::Chats { company, agent }),
            ("agents", None) => Ok(Self::Agents { company, agent }),
            ("messages", Some(chat)) => Ok(Self::Messages { company, agent, chat: ChatId::parse(chat)? }),
            _ => Err(SubjectError::Shape),
        }
    }

    /// The subject that [`Address::parse`] reads as this address.
    #[must_use]
    pub fn subject(&self, prefix: &str) -> String {
        match self {
            Self::Chats { company, agent } => format!("{prefix}.{company}.{agent}.chats"),
            Self::Messages { company, agent, chat } => format!("{prefix}.{company}.{agent}.messages.{chat}"),
            Self::Agents { company, agent } => format!("{prefix}.{company}.{agent}.agents"),
        }
    }

    /// What kind of event goes there.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Chats { .. } => EventKind::Chat,
            Self::Messages { .. } => EventKind::Message,
            Self::Agents { .. } => EventKind::Agent,
        }
    }

    /// The company that the subject names, whatever kind of event it is.
    #[must_use]
    pub fn company(&self) -> &CompanyId {
        match self {
            Self::Chats { company, .. } | Self::Messages { company, .. } | Self::Agents { company, .. } => company,
        }
    }

    /// The agent that the subject names, whatever kind of event it is.
    #[must_use]
    pub fn agent(&self) -> &AgentId {
        match self {
            Self::Chats { agent, .. } | Self::Messages { agent, .. } | Self::Agents { agent, .. } => agent,
        }
    }

    /// The chat of a message event.
    #[must_use]
    pub fn chat(&self) -> Option<&ChatId> {
        match self {
            Self::Messages { chat, .. } => Some(chat),
            Self::Chats { .. } | Self::Agents { .. } => None,
        }
    }

    /// The routes whose sockets see the event: one, or for an agent event the four scopes that can cover it.
    #[must_use]
    pub fn routes(&self) -> Routes {
        match self {
            Self::Chats { company, agent } => {
                smallvec![RouteKey::Chats { company: company.clone(), agent: agent.clone() }]
            }
            Self::Messages { company, agent, chat } => {
                smallvec![RouteKey::Messages { company: company.clone(), agent: agent.clone(), chat: chat.clone() }]
            }
            Self::Agents { company, agent } => {
                let companies = [Scope::Any, Scope::Only(company.clone())];
                let agents = [Scope::Any, Scope::Only(agent.clone())];
                companies
                    .iter()
                    .flat_map(|c| agents.iter().map(move |a| (c.clone(), a.clone())))
                    .map(|(company, agent)| RouteKey::Agents { company, agent })
                    .collect()
            }
        }
    }
}

crate::words! {
    /// Which way an event came to the socket's pod; the closed set behind the `path` label.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Path {
        /// The pod that took it from the stream has the socket.
        Local = "local",
        /// A peer handed it over.
        Forwarded = "forwarded",
        /// It was read again from the stream.
        Replayed = "replayed",
    }
}

/// Why bytes are no event payload. Redelivery cannot mend any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A text frame could not carry it.
    #[error("the payload is not UTF-8")]
    NotUtf8,
    /// Broken JSON, or JSON that is no object.
    #[error("the payload is not one JSON object")]
    NotAnObject,
}

/// A publisher's JSON object, checked but never re-encoded: large integers, key order and unknown fields survive.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    text: Bytes,
    has_event_type: bool,
    event_time: Option<Duration>,
    event_id: Option<Bytes>,
}

impl Payload {
    /// Checks that the bytes are one JSON object; white space around it is cut off, nothing else is changed.
    ///
    /// # Errors
    /// When the bytes are not UTF-8 or not one JSON object.
    pub fn parse(bytes: &Bytes) -> Result<Self, PayloadError> {
        let text = std::str::from_utf8(bytes).map_err(|_| PayloadError::NotUtf8)?;
        let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
        let mut json = serde_json::Deserializer::from_str(trimmed);
        let found = json.deserialize_map(TopLevel).map_err(|_| PayloadError::NotAnObject)?;
        json.end().map_err(|_| PayloadError::NotAnObject)?;
        Ok(Self {
            text: bytes.slice_ref(trimmed.as_bytes()),
            has_event_type: found.event_type,
            event_time: found.event_time.and_then(since_epoch),
            event_id: found.event_id.filter(|id| is_loggable(id)).map(|id| bytes.slice_ref(id.as_bytes())),
        })
    }

    /// The object's bytes, valid UTF-8, from `{` to `}`.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.text
    }

    /// Did the publisher set `event_type` at the top level?
    #[must_use]
    pub fn has_event_type(&self) -> bool {
        self.has_event_type
    }

    /// When it happened, as the publisher says, since the Unix epoch; `None` without an RFC 3339 `event_time`. Only for
    /// measuring: nothing is ordered or decided by it.
    #[must_use]
    pub fn event_time(&self) -> Option<Duration> {
        self.event_time
    }

    /// The publisher's `event_id`, if it is a plain text that fits a log line; only for logs and traces.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.event_id.as_deref().and_then(|id| std::str::from_utf8(id).ok())
    }
}

/// Longest `event_id` that is shown.
const MAX_EVENT_ID: usize = 128;

fn is_loggable(id: &str) -> bool {
    (1..=MAX_EVENT_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn since_epoch(time: &str) -> Option<Duration> {
    let nanos = OffsetDateTime::parse(time, &Rfc3339).ok()?.unix_timestamp_nanos();
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

/// Redacted: payloads are customers' messages and have no place in a log.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.text.len())
    }
}

/// What the top level of the object says of the event.
#[derive(Default)]
struct Found<'de> {
    event_type: bool,
    event_time: Option<&'de str>,
    event_id: Option<&'de str>,
}

/// Walks the whole object once. A value of another kind than expected is as good as none: payloads are the publisher's business.
struct TopLevel;

impl<'de> Visitor<'de> for TopLevel {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = Found::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::EventTime => found.event_time = plain_text(map.next_value()?),
                Key::EventId => found.event_id = plain_text(map.next_value()?),
                Key::EventType | Key::Other => {
                    found.event_type |= matches!(key, Key::EventType);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A key of the top level. The others are not kept, so that none costs memory.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    EventTime,
    EventId,
    EventType,
    #[serde(other)]
    Other,
}

/// The text of a JSON string without escapes.
fn plain_text(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"').filter(|text| !text.contains('\\'))
}

/// Which stream a sequence belongs to: its creation time, in nanoseconds since the Unix epoch.
///
/// A stream that is deleted and made anew counts from 1 again; without this, its events would pass for redeliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(pub i128);

impl StreamId {
    /// No stream: the event came from an older pod, which sends no sequence. No real stream was created before the epoch.
    pub const UNKNOWN: Self = Self(-1);
}

/// One event, addressed and checked.
#[derive(Debug, Clone)]
pub struct Event {
    /// Whom it is for, as its subject says.
    pub address: Address,
    /// The publisher's JSON object, byte for byte.
    pub payload: Payload,
    /// The stream it was stored in.
    pub stream: StreamId,
    /// Its sequence there: what a client orders and deduplicates by. 0 when the stream is [`StreamId::UNKNOWN`].
    pub seq: u64,
    /// When the stream stored it, since the Unix epoch.
    pub stored_at: Duration,
    /// The publisher's `X-Request-ID`, for the log alone.
    pub request_id: Option<String>,
    /// W3C trace context of the publisher.
    pub traceparent: Option<String>,
}

impl Event {
    /// Does the event have a place in a stream? Without one it shows no `seq`, and duplicates of it can't be recognised.
    #[must_use]
    pub fn is_sequenced(&self) -> bool {
        self.stream != StreamId::UNKNOWN
    }
}

#[cfg(test)]
mod tests;
