//! Who takes part: people with sessions, and publishers.

use std::time::Duration;

use daisi_ws_domain::{
    claims::{AdminClaims, Claims, UserClaims},
    ids::{AdminId, AgentId, ChatId, CompanyId, IdError, UserId},
    route::{RouteKey, Scope},
};
use daisi_ws_service::runtime::clock;
use serde::{Deserialize, Serialize};

/// Tokens outlive every run.
const TOKEN_LIFE: Duration = Duration::from_secs(86_400);

/// Somebody with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// What their token says.
    pub who: Who,
    /// Bytes that fit between a pod and their browser.
    pub pipe: usize,
}

/// What a token says.
#[expect(missing_docs, reason = "the numbers of their ids")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// An operator.
    User { company: u8, agent: u8, user: u8 },
    /// An administrator, of one company or of all.
    Admin { admin: u8, company: Option<u8> },
}

/// What events are about.
#[expect(missing_docs, reason = "the numbers of their ids")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// For everybody of an agent.
    Chats { company: u8, agent: u8 },
    /// For those of them that have selected the chat.
    Messages { company: u8, agent: u8, chat: u8 },
    /// For administrators.
    Agents { company: u8, agent: u8 },
}

/// Publishes all the time, until the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// What it publishes.
    pub topic: Topic,
    /// Milliseconds from one event to the next.
    pub every: u64,
}

fn company(n: u8) -> Result<CompanyId, IdError> {
    CompanyId::parse(&format!("c{n}"))
}

fn agent(n: u8) -> Result<AgentId, IdError> {
    AgentId::parse(&format!("a{n}"))
}

/// A chat, with the characters that only chats may have.
fn chat(n: u8) -> Result<ChatId, IdError> {
    ChatId::parse(&format!("k.{n}:x"))
}

impl Who {
    /// The claims of their token, made now.
    ///
    /// # Errors
    /// Never: such names are ids.
    pub fn claims(self) -> anyhow::Result<Claims> {
        let expires_at = clock::now() + TOKEN_LIFE;
        Ok(match self {
            Self::User { company: c, agent: a, user } => Claims::User(UserClaims {
                company: company(c)?,
                agent: agent(a)?,
                user: UserId::parse(&format!("u{user}"))?,
                expires_at,
            }),
            Self::Admin { admin, company: c } => {
                let of = c.map(|c| format!("c{c}"));
                Claims::Admin(AdminClaims::new(AdminId::parse(&format!("m{admin}"))?, of.as_deref(), None, None, expires_at)?)
            }
        })
    }

    /// May they see what is about this, if these are their chats?
    #[must_use]
    pub fn wants(self, topic: Topic, has_selected: impl FnOnce(u8) -> bool) -> bool {
        match (self, topic) {
            (Self::User { company, agent, .. }, Topic::Chats { company: c, agent: a }) => (company, agent) == (c, a),
            (Self::User { company, agent, .. }, Topic::Messages { company: c, agent: a, chat }) => {
                (company, agent) == (c, a) && has_selected(chat)
            }
            (Self::Admin { company, .. }, Topic::Agents { company: c, .. }) => company.is_none_or(|company| company == c),
            _ => false,
        }
    }
}

impl Topic {
    /// Where it is published.
    #[must_use]
    pub fn subject(self) -> String {
        match self {
            Self::Chats { company, agent } => format!("wa.c{company}.a{agent}.chats"),
            Self::Messages { company, agent, chat } => format!("wa.c{company}.a{agent}.messages.k.{chat}:x"),
            Self::Agents { company, agent } => format!("wa.c{company}.a{agent}.agents"),
        }
    }

    /// The route of it that most sessions have.
    ///
    /// # Errors
    /// Never: such names are ids.
    pub fn route(self) -> Result<RouteKey, IdError> {
        Ok(match self {
            Self::Chats { company: c, agent: a } => RouteKey::Chats { company: company(c)?, agent: agent(a)? },
            Self::Messages { company: c, agent: a, chat: k } => {
                RouteKey::Messages { company: company(c)?, agent: agent(a)?, chat: chat(k)? }
            }
            Self::Agents { company: c, .. } => RouteKey::Agents { company: Scope::Only(company(c)?), agent: Scope::Any },
        })
    }

    /// As a number, for payloads.
    #[must_use]
    pub fn code(self) -> u64 {
        let code = |kind: u64, company: u8, agent: u8, chat: u8| {
            kind << 24 | u64::from(company) << 16 | u64::from(agent) << 8 | u64::from(chat)
        };
        match self {
            Self::Chats { company, agent } => code(1, company, agent, 0),
            Self::Messages { company, agent, chat } => code(2, company, agent, chat),
            Self::Agents { company, agent } => code(3, company, agent, 0),
        }
    }
}
