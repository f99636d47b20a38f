//! Names of keys and channels, and their way back. They are the wire contract's: old pods and operators know them.

use daisi_ws_domain::{
    ids::{AdminId, AgentId, CompanyId, PodId, UserId},
    route::RouteKey,
    session::SessionKey,
};

/// The set of pods.
pub(super) const PODS: &str = "pods";
/// The value that tells a store with data from one that came back empty.
pub(super) const EPOCH: &str = "routes:epoch";
/// All kill channels.
pub(super) const KILL_PATTERN: &str = "session_kill:*";

const KILL_PREFIX: &str = "session_kill:";

/// What follows the prefix in a session's keys and channel. A company named `admin` is no danger: a user has three parts, an
/// administrator two, and no part can hold a `:`.
fn session_parts(key: &SessionKey) -> String {
    match key {
        SessionKey::User { company, agent, user } => format!("{company}:{agent}:{user}"),
        SessionKey::Admin { admin } => format!("admin:{admin}"),
    }
}

/// The lock.
pub(super) fn lock(key: &SessionKey) -> String {
    format!("session:{}", session_parts(key))
}

/// The selected chat. For an administrator, for whom the predecessor has none, with an empty part: else it would be the lock of
/// the user `selected_chat` of a company `admin`.
pub(super) fn selected_chat(key: &SessionKey) -> String {
    let empty = match key {
        SessionKey::User { .. } => "",
        SessionKey::Admin { .. } => ":",
    };
    format!("session:{}{empty}:selected_chat", session_parts(key))
}

/// The channel on which a session's kills are published.
pub(super) fn kill_channel(key: &SessionKey) -> String {
    format!("{KILL_PREFIX}{}", session_parts(key))
}

/// The session whose channel this is; `None` if it is none's.
pub(super) fn parse_kill_channel(channel: &str) -> Option<SessionKey> {
    let mut parts = channel.strip_prefix(KILL_PREFIX)?.split(':');
    match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        ("admin", admin, None, None) => Some(SessionKey::Admin { admin: AdminId::parse(admin).ok()? }),
        (company, agent, Some(user), None) => Some(SessionKey::User {
            company: CompanyId::parse(company).ok()?,
            agent: AgentId::parse(agent).ok()?,
            user: UserId::parse(user).ok()?,
        }),
        _ => None,
    }
}

/// The set of pods on a route.
pub(super) fn route(route: &RouteKey) -> String {
    match route {
        RouteKey::Chats { company, agent } => format!("route:{company}:{agent}:chats"),
        RouteKey::Messages { company, agent, chat } => format!("route:{company}:{agent}:messages:{chat}"),
        RouteKey::Agents { company, agent } => format!("route:{}:{}:agents", company.as_str(), agent.as_str()),
    }
}

/// A pod's liveness and address.
pub(super) fn pod(id: &PodId) -> String {
    format!("pod:{id}")
}

/// How often a pod was taken for dead.
pub(super) fn retirements(id: &PodId) -> String {
    format!("pod_retirements:{id}")
}

/// That a pod has left by itself.
pub(super) fn goodbye(id: &PodId) -> String {
    format!("pod_left:{id}")
}

/// An opened token.
pub(super) fn token(digest: &str) -> String {
    format!("token_cache:{digest}")
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::{ids::ChatId, route::Scope};
    use proptest::prelude::*;

    use super::*;

    fn user(company: &str, agent: &str, user: &str) -> SessionKey {
        SessionKey::User {
            company: CompanyId::parse(company).unwrap(),
            agent: AgentId::parse(agent).unwrap(),
            user: UserId::parse(user).unwrap(),
        }
    }

    fn admin(id: &str) -> SessionKey {
        SessionKey::Admin { admin: AdminId::parse(id).unwrap() }
    }

    #[test]
    fn keys_and_channels_are_those_of_the_contract() {
        let sari = user("acme", "desk", "sari@acme.example");
        assert_eq!(lock(&sari), "session:acme:desk:sari@acme.example");
        assert_eq!(selected_chat(&sari), "session:acme:desk:sari@acme.example:selected_chat");
        assert_eq!(kill_channel(&sari), "session_kill:acme:desk:sari@acme.example");
        assert_eq!(lock(&admin("root")), "session:admin:root");
        assert_eq!(kill_channel(&admin("root")), "session_kill:admin:root");
        assert_eq!(pod(&PodId::parse("10.0.0.1:50051").unwrap()), "pod:10.0.0.1:50051");
        assert_eq!(token("00ff"), "token_cache:00ff");

        let (company, agent) = (CompanyId::parse("acme").unwrap(), AgentId::parse("desk").unwrap());
        let chat = ChatId::parse("62811:7@s.whatsapp.net").unwrap();
        assert_eq!(route(&RouteKey::Chats { company: company.clone(), agent: agent.clone() }), "route:acme:desk:chats");
        assert_eq!(
            route(&RouteKey::Messages { company: company.clone(), agent, chat }),
            "route:acme:desk:messages:62811:7@s.whatsapp.net"
        );
        assert_eq!(route(&RouteKey::Agents { company: Scope::Only(company), agent: Scope::Any }), "route:acme:*:agents");
    }

    #[test]
    fn a_company_named_admin_is_no_administrator() {
        let keys =
            [admin("root"), user("admin", "root", "selected_chat"), user("admin", "root", "x"), user("admin", "admin", "root")];
        let mut names: Vec<String> = keys.iter().flat_map(|key| [lock(key), selected_chat(key)]).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
    }

    #[test]
    fn channels_of_nobody_are_recognised() {
        for channel in
            ["session_kill:", "session_kill:a", "session_kill:a:b", "session_kill:a:b:c:d", "session_kill:a::c", "other:a:b:c"]
        {
            assert_eq!(parse_kill_channel(channel), None, "{channel}");
        }
    }

    fn session() -> impl Strategy<Value = SessionKey> {
        // Few values, so that near collisions are likely.
        let word = || prop_oneof![Just("admin"), Just("a"), Just("b"), Just("selected_chat"), Just("chats"), Just("messages")];
        prop_oneof![(word(), word(), word()).prop_map(|(company, agent, id)| user(company, agent, id)), word().prop_map(admin),]
    }

    fn any_route() -> impl Strategy<Value = RouteKey> {
        let word = || prop_oneof![Just("a"), Just("b"), Just("chats"), Just("messages"), Just("agents")];
        let chat = prop_oneof![Just("a"), Just("a:chats"), Just("messages:a"), Just("agents")];
        let company = |word: &str| CompanyId::parse(word).unwrap();
        let agent = |word: &str| AgentId::parse(word).unwrap();
        prop_oneof![
            (word(), word()).prop_map(move |(c, a)| RouteKey::Chats { company: company(c), agent: agent(a) }),
            (word(), word(), chat).prop_map(move |(c, a, chat)| RouteKey::Messages {
                company: company(c),
                agent: agent(a),
                chat: ChatId::parse(chat).unwrap(),
            }),
            (prop::option::of(word()), prop::option::of(word())).prop_map(move |(c, a)| RouteKey::Agents {
                company: c.map_or(Scope::Any, |c| Scope::Only(company(c))),
                agent: a.map_or(Scope::Any, |a| Scope::Only(agent(a))),
            }),
        ]
    }

    proptest! {
        #[test]
        fn distinct_sessions_never_share_a_key(one in session(), other in session()) {
            prop_assert_eq!(lock(&one) == lock(&other), one == other);
            prop_assert_eq!(selected_chat(&one) == selected_chat(&other), one == other);
            prop_assert_ne!(lock(&one), selected_chat(&other));
        }

        #[test]
        fn a_kill_channel_gives_its_session_back(key in session()) {
            prop_assert_eq!(parse_kill_channel(&kill_channel(&key)), Some(key));
        }

        #[test]
        fn distinct_routes_never_share_a_key(one in any_route(), other in any_route()) {
            prop_assert_eq!(route(&one) == route(&other), one == other);
        }
    }
}
