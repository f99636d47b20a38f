//! Orders to close a socket, to and from their messages.

use daisi_ws_domain::{
    ids::{AdminId, AgentId, CompanyId, ConnectionId, PodId, UserId},
    session::{Kill, KillClaim, LockOwner, SessionKey},
};
use daisi_ws_proto::dws_message_fwd as wire;

use super::convert::BadMessage;

/// The message for an order to `to`.
pub(super) fn kill_to_wire(to: &PodId, kill: &Kill) -> wire::EvictRequest {
    let text = |connection: Option<&ConnectionId>| connection.map(ToString::to_string).unwrap_or_default();
    let claim = match kill.claim {
        KillClaim::Newer => wire::EvictClaim::Unspecified,
        KillClaim::Second => wire::EvictClaim::Second,
        KillClaim::Moved => wire::EvictClaim::Moved,
    };
    wire::EvictRequest {
        source_pod_id: kill.new_pod.to_string(),
        target_pod_id: to.to_string(),
        session: Some(session_to_wire(&kill.key)),
        connection_id: text(kill.victim.as_ref().and_then(|victim| victim.connection.as_ref())),
        new_connection_id: text(kill.connection.as_ref()),
        claim: claim.into(),
    }
}

/// The order of a message to this pod, which names one socket. A right that we don't know yet counts as the plainest.
pub(super) fn kill_from_wire(me: &PodId, message: &wire::EvictRequest) -> Result<Kill, BadMessage> {
    let claim = match message.claim() {
        wire::EvictClaim::Unspecified => KillClaim::Newer,
        wire::EvictClaim::Second => KillClaim::Second,
        wire::EvictClaim::Moved => KillClaim::Moved,
    };
    Ok(Kill {
        key: session_from_wire(message.session.as_ref())?,
        new_pod: PodId::parse(&message.source_pod_id)?,
        connection: Some(ConnectionId::parse(&message.new_connection_id)?),
        victim: Some(LockOwner::new(me.clone(), ConnectionId::parse(&message.connection_id)?)),
        claim,
    })
}

fn session_to_wire(key: &SessionKey) -> wire::Session {
    let key = match key {
        SessionKey::User { company, agent, user } => wire::session::Key::User(wire::UserSession {
            company_id: company.to_string(),
            agent_id: agent.to_string(),
            user_id: user.to_string(),
        }),
        SessionKey::Admin { admin } => wire::session::Key::AdminId(admin.to_string()),
    };
    wire::Session { key: Some(key) }
}

fn session_from_wire(message: Option<&wire::Session>) -> Result<SessionKey, BadMessage> {
    match message.and_then(|session| session.key.as_ref()) {
        Some(wire::session::Key::User(wire::UserSession { company_id, agent_id, user_id })) => Ok(SessionKey::User {
            company: CompanyId::parse(company_id)?,
            agent: AgentId::parse(agent_id)?,
            user: UserId::parse(user_id)?,
        }),
        Some(wire::session::Key::AdminId(admin)) => Ok(SessionKey::Admin { admin: AdminId::parse(admin)? }),
        None => Err(BadMessage::Session),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_the_round_trip_and_names_one_socket_of_the_called_pod() {
        let me = PodId::parse("pod-a").unwrap();
        let user = SessionKey::User {
            company: CompanyId::parse("acme").unwrap(),
            agent: AgentId::parse("a1").unwrap(),
            user: UserId::parse("sari@acme").unwrap(),
        };
        let admin = SessionKey::Admin { admin: AdminId::parse("root").unwrap() };
        for (key, claim) in [(user, KillClaim::Second), (admin.clone(), KillClaim::Moved), (admin, KillClaim::Newer)] {
            let kill = Kill {
                key,
                new_pod: PodId::parse("pod-b").unwrap(),
                connection: Some(ConnectionId::parse("c2").unwrap()),
                victim: Some(LockOwner::parse("pod-a/c1").unwrap()),
                claim,
            };
            let message = kill_to_wire(&me, &kill);
            assert_eq!(kill_from_wire(&me, &message).unwrap(), kill);
            for broken in [
                wire::EvictRequest { session: None, ..message.clone() },
                wire::EvictRequest { session: Some(wire::Session { key: None }), ..message.clone() },
                wire::EvictRequest { connection_id: String::new(), ..message.clone() },
                wire::EvictRequest { new_connection_id: "a b".to_owned(), ..message.clone() },
                wire::EvictRequest { source_pod_id: "a/b".to_owned(), ..message.clone() },
            ] {
                assert!(kill_from_wire(&me, &broken).is_err(), "{broken:?}");
            }
        }
    }

    #[test]
    fn a_right_that_is_not_known_yet_is_that_of_a_newer_socket() {
        let kill = Kill {
            key: SessionKey::Admin { admin: AdminId::parse("root").unwrap() },
            new_pod: PodId::parse("pod-b").unwrap(),
            connection: Some(ConnectionId::parse("c2").unwrap()),
            victim: Some(LockOwner::parse("pod-a/c1").unwrap()),
            claim: KillClaim::Newer,
        };
        let me = PodId::parse("pod-a").unwrap();
        let message = wire::EvictRequest { claim: 99, ..kill_to_wire(&me, &kill) };
        assert_eq!(kill_from_wire(&me, &message).unwrap(), kill);
    }
}
