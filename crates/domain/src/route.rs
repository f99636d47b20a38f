//! Routes: which pods hold sockets that should see an event.

use crate::ids::{AgentId, ChatId, CompanyId};

/// One value or all of them: one side of an admin's subscription.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope<T> {
    /// Every company or agent (`*`).
    Any,
    /// This one and no other.
    Only(T),
}

impl<T: PartialEq> Scope<T> {
    /// Does the scope take in the value?
    pub fn covers(&self, value: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Only(only) => only == value,
        }
    }
}

impl<T: AsText> Scope<T> {
    /// The value as it stands in keys, or `*` for any.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Only(only) => only.as_text(),
        }
    }
}

/// Ids that can stand in a [`Scope`].
pub trait AsText {
    /// The id as text.
    fn as_text(&self) -> &str;
}

impl AsText for CompanyId {
    fn as_text(&self) -> &str {
        self.as_str()
    }
}

impl AsText for AgentId {
    fn as_text(&self) -> &str {
        self.as_str()
    }
}

/// A set of sockets, over the fleet, that see the same events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RouteKey {
    /// Every session of a company and agent.
    Chats {
        /// The company in the key.
        company: CompanyId,
        /// The agent in the key.
        agent: AgentId,
    },
    /// Those of them that selected the chat.
    Messages {
        /// The company in the key.
        company: CompanyId,
        /// The agent in the key.
        agent: AgentId,
        /// The chat in the key, dots included.
        chat: ChatId,
    },
    /// Admins that subscribed to just this scope.
    Agents {
        /// The companies that an admin may see.
        company: Scope<CompanyId>,
        /// The agents that an admin may see.
        agent: Scope<AgentId>,
    },
}

impl RouteKey {
    /// The subjects of its events, as NATS filters them; one of ids with dots may let others through.
    #[must_use]
    pub fn filter(&self, prefix: &str) -> String {
        match self {
            Self::Chats { company, agent } => format!("{prefix}.{company}.{agent}.chats"),
            Self::Messages { company, agent, chat } => format!("{prefix}.{company}.{agent}.messages.{chat}"),
            Self::Agents { company, agent } => format!("{prefix}.{}.{}.agents", company.as_str(), agent.as_str()),
        }
    }
}
