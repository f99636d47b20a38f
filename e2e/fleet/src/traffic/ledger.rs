//! What a session saw, in the order in which it saw it, and what was published.

use serde::Deserialize;
use tokio::time::Instant;

/// Whose session it is, and so what concerns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A user, who sees the chats of one agent and the messages of the chat that is selected.
    User {
        /// The company.
        company: String,
        /// The agent.
        agent: String,
        /// The user.
        user: String,
        /// The chat that is selected after every connect, if any.
        chat: Option<String>,
    },
    /// An admin, who sees the agents of one company, or of all.
    Admin {
        /// The admin.
        admin: String,
        /// The company; none: all.
        company: Option<String>,
    },
}

impl Who {
    /// A name for messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::User { company, agent, user, .. } => format!("{company}/{agent}/{user}"),
            Self::Admin { admin, .. } => format!("admin {admin}"),
        }
    }

    /// A user's session of an agent that has no other, so that its route names one pod alone.
    #[must_use]
    pub fn alone(agent: &str) -> Self {
        Self::User { company: "acme".to_owned(), agent: agent.to_owned(), user: "newcomer".to_owned(), chat: None }
    }

    /// Where events for all sessions of a user's agent are published; nowhere for an admin.
    #[must_use]
    pub fn chats(&self) -> Option<Subject> {
        match self {
            Self::User { company, agent, .. } => {
                Some(Subject { company: company.clone(), agent: agent.clone(), kind: Kind::Chats })
            }
            Self::Admin { .. } => None,
        }
    }

    /// Does an event on this subject concern this session?
    #[must_use]
    pub fn wants(&self, subject: &Subject) -> bool {
        match (self, &subject.kind) {
            (Self::User { company, agent, .. }, Kind::Chats) => (company, agent) == (&subject.company, &subject.agent),
            (Self::User { company, agent, chat, .. }, Kind::Messages(id)) => {
                (company, agent) == (&subject.company, &subject.agent) && chat.as_ref() == Some(id)
            }
            (Self::Admin { company, .. }, Kind::Agents) => company.as_ref().is_none_or(|company| *company == subject.company),
            _ => false,
        }
    }
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// For every session of a company and agent.
    Chats,
    /// For those that selected the chat.
    Messages(String),
    /// For admins.
    Agents,
}

/// Where an event was published.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The company.
    pub company: String,
    /// The agent.
    pub agent: String,
    /// The kind.
    pub kind: Kind,
}

impl Subject {
    /// As NATS has it.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { company, agent, kind } = self;
        match kind {
            Kind::Chats => format!("wa.{company}.{agent}.chats"),
            Kind::Messages(chat) => format!("wa.{company}.{agent}.messages.{chat}"),
            Kind::Agents => format!("wa.{company}.{agent}.agents"),
        }
    }
}

/// A record of one stored event.
#[derive(Debug, Clone)]
pub struct Published {
    /// The publisher's number, also in the payload.
    pub number: u64,
    /// Where it was published.
    pub subject: Subject,
    /// Its sequence in the stream.
    pub seq: u64,
    /// When the first attempt to store it began.
    pub started: Instant,
    /// When the stream confirmed that it has it.
    pub stored: Instant,
}

/// One line of a ledger.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it was seen.
    pub at: Instant,
    /// What was seen.
    pub seen: Seen,
}

/// What a session can see.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// `ready`: a socket to the pod of this id is open.
    Ready(String),
    /// The chat is selected.
    ChatSelected,
    /// An event with its sequence, the publisher's number and the subject that its payload names.
    Event {
        /// `seq` of the frame.
        seq: u64,
        /// The publisher's number.
        number: u64,
        /// The subject, as text, that the publisher wrote into the payload.
        subject: String,
    },
    /// A gap: so many events, first and last sequence, as far as the pod knows, and the reason.
    Gap {
        /// The range, where it is known.
        range: Option<(u64, u64)>,
        /// Why.
        reason: String,
    },
    /// An `error` frame, with its code.
    Error(String),
    /// The end of the socket, with its close code if there was a goodbye.
    Closed(Option<u16>),
    /// What no frame should be.
    Nonsense(String),
}

impl Seen {
    /// Reads a frame.
    #[must_use]
    pub fn read(text: &str) -> Self {
        #[derive(Deserialize)]
        struct Frame<'a> {
            r#type: &'a str,
            seq: Option<u64>,
            #[serde(default)]
            payload: serde_json::Value,
        }
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return Self::Nonsense(text.to_owned()) };
        let word = |key: &str| frame.payload[key].as_str().unwrap_or_default().to_owned();
        match (frame.r#type, frame.seq, frame.payload["n"].as_u64()) {
            ("event", Some(seq), Some(number)) => Self::Event { seq, number, subject: word("subject") },
            ("ready", ..) => Self::Ready(word("pod_id")),
            ("chat_selected", ..) => Self::ChatSelected,
            ("gap", ..) => Self::Gap {
                range: frame.payload["first_seq"].as_u64().zip(frame.payload["last_seq"].as_u64()),
                reason: word("reason"),
            },
            ("error", ..) => Self::Error(word("code")),
            _ => Self::Nonsense(text.to_owned()),
        }
    }
}

/// All that one session saw.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Whose it is.
    pub who: Who,
    /// The lines.
    pub entries: Vec<Entry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read() {
        let subject = "wa.a.b.chats".to_owned();
        assert_eq!(
            Seen::read(r#"{"type":"event","seq":7,"payload":{"n":1,"subject":"wa.a.b.chats"}}"#),
            Seen::Event { seq: 7, number: 1, subject }
        );
        assert_eq!(
            Seen::read(r#"{"type":"gap","payload":{"dropped":null,"first_seq":null,"last_seq":null,"reason":"pod_resumed"}}"#),
            Seen::Gap { range: None, reason: "pod_resumed".into() }
        );
        assert!(matches!(Seen::read(r#"{"type":"event","payload":{}}"#), Seen::Nonsense(_)));
    }

    #[test]
    fn a_session_wants_its_own_and_nothing_else() {
        let subject = |company: &str, agent: &str, kind| Subject { company: company.into(), agent: agent.into(), kind };
        let user = Who::User { company: "acme".into(), agent: "a1".into(), user: "sari".into(), chat: Some("c1".into()) };
        assert!(user.wants(&subject("acme", "a1", Kind::Chats)));
        assert!(user.wants(&subject("acme", "a1", Kind::Messages("c1".into()))));
        assert!(!user.wants(&subject("acme", "a1", Kind::Messages("c2".into()))));
        assert!(!user.wants(&subject("acme", "a2", Kind::Chats)) && !user.wants(&subject("other", "a1", Kind::Chats)));
        assert!(!user.wants(&subject("acme", "a1", Kind::Agents)));
        let admin = Who::Admin { admin: "root".into(), company: Some("acme".into()) };
        assert!(admin.wants(&subject("acme", "a9", Kind::Agents)) && !admin.wants(&subject("other", "a9", Kind::Agents)));
    }
}
