//! Who a session is of, and the subjects that concern it.

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

#[cfg(test)]
mod tests {
    use super::*;

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
