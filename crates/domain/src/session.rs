//! A session and who owns it.

use std::fmt;

use crate::ids::{AdminId, AgentId, CompanyId, ConnectionId, IdError, PodId, UserId};

crate::words! {
    /// The two kinds of session; the closed set behind every `type` label.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum SessionKind {
        /// An operator of one company and agent.
        User = "user",
        /// An administrator: sees the events about agents.
        Admin = "admin",
    }
}

/// What is exclusive: at most one live socket in the fleet per key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SessionKey {
    /// A user of one agent of a company.
    User {
        /// The company of the token.
        company: CompanyId,
        /// The agent of the token.
        agent: AgentId,
        /// The user of the token.
        user: UserId,
    },
    /// An administrator: sees the events about agents.
    Admin {
        /// The admin of the token.
        admin: AdminId,
    },
}

impl SessionKey {
    /// Which kind of session this is.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        match self {
            Self::User { .. } => SessionKind::User,
            Self::Admin { .. } => SessionKind::Admin,
        }
    }
}

/// The value of a session lock: the pod, and the socket on it.
///
/// The socket makes it a fencing token: an old owner on the *same* pod can neither renew nor release its successor's lock. A pod
/// of the predecessor writes only its pod id, so the connection may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LockOwner {
    /// The pod that holds the socket.
    pub pod: PodId,
    /// The socket; `None` in what an old pod wrote.
    pub connection: Option<ConnectionId>,
}

impl LockOwner {
    /// The owner that a socket of this fleet writes.
    #[must_use]
    pub fn new(pod: PodId, connection: ConnectionId) -> Self {
        Self { pod, connection: Some(connection) }
    }

    /// Parses `{pod_id}/{connection_id}`, or an old pod's bare `{pod_id}`.
    ///
    /// # Errors
    /// When either part is no id.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        match text.split_once('/') {
            Some((pod, connection)) => Ok(Self { pod: PodId::parse(pod)?, connection: Some(ConnectionId::parse(connection)?) }),
            None => Ok(Self { pod: PodId::parse(text)?, connection: None }),
        }
    }
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connection {
            Some(connection) => write!(f, "{}/{connection}", self.pod),
            None => write!(f, "{}", self.pod),
        }
    }
}

/// The order to close one socket, so that another can have its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The session that has to be let go.
    pub key: SessionKey,
    /// The pod of the socket that takes over.
    pub new_pod: PodId,
    /// The socket that takes over; an old pod does not name it.
    pub connection: Option<ConnectionId>,
    /// The owner to close; an old pod names none, and then it is who is not on `new_pod`.
    pub victim: Option<LockOwner>,
    /// What the socket that takes over says of itself.
    pub claim: KillClaim,
}

/// By what right a socket asks for a session that another has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KillClaim {
    /// It is newer.
    #[default]
    Newer,
    /// It is a second socket of a client that was asked to move, if the owner knows of that; then the owner may serve on until the
    /// lock has passed.
    Second,
    /// As a second socket it has the lock by now.
    Moved,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_value_survives_the_round_trip() {
        for text in ["pod-1/0af3", "10.0.0.1:50051/x", "old-pod"] {
            assert_eq!(LockOwner::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_lock_value_with_a_second_slash_is_refused() {
        assert!(LockOwner::parse("a/b/c").is_err());
        assert!(LockOwner::parse("").is_err());
        assert!(LockOwner::parse("/b").is_err());
    }
}
