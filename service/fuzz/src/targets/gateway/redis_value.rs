//! Which value, then its bytes, as anybody may have put them there.

use std::{collections::HashSet, sync::Arc, sync::LazyLock};

use daisi_ws_domain::{
    ids::{AdminId, AgentId, ChatId, CompanyId, PodId, UserId},
    route::{RouteKey, Scope},
    session::SessionKey,
};
use daisi_ws_service::{adapters::redis::fuzzing as redis, application::fleet::key::FleetKey, metrics::Metrics};

use super::{FLEET, ME, UNUSED};
use crate::{
    input::{Input, edit, split, text},
    must,
};

/// Those of this fleet, and of one whose key has signed nothing: alone, and with records of the version before.
static RECORDS: LazyLock<[redis::Records; 3]> = LazyLock::new(|| {
    let metrics = Arc::new(must(Metrics::new(), "metrics"));
    [(&FLEET, false), (&UNUSED, false), (&UNUSED, true)]
        .map(|(key, previous)| redis::Records::proved(FleetKey::clone(key), previous, Arc::clone(&metrics)))
});

pub(in super::super) fn prepare() {
    LazyLock::force(&RECORDS);
}

pub(in super::super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    match input.byte() % 6 {
        0 => kill(input.rest()),
        1 => record(input.rest()),
        2 => changed_record(input.rest()),
        3 => members(input.rest()),
        4 => texts(&text(input.rest())),
        _ => keys(input.rest()),
    }
}

fn kill(input: &[u8]) {
    let [channel, payload] = split(input);
    let Some(kill) = redis::kill(&text(channel), payload) else { return };
    let (on, message) = redis::kill_message(&kill).unwrap_or_else(|| crate::fail("a kill can't be written"));
    assert_eq!(on, text(channel), "a kill goes to another channel");
    assert_eq!(redis::kill(&on, &message), Some(kill), "a kill is written otherwise");
}

/// A record that nobody of the fleet wrote names nobody, unless those of the version before are taken.
fn record(input: &[u8]) {
    let [_, strict, lenient] = &*RECORDS;
    assert_eq!(strict.read(&ME.id, input), None, "a record is made up");
    if let Some(pod) = lenient.read(&ME.id, input) {
        assert_eq!(pod.id, ME.id);
        assert!(pod.address.len() < input.len() && input.len() <= 1024);
    }
}

fn changed_record(edits: &[u8]) {
    let strict = &RECORDS[0];
    let written = strict.write(&ME).unwrap_or_else(|| crate::fail("a record can't be written"));
    assert_eq!(strict.read(&ME.id, written.as_bytes()).as_ref(), Some(&*ME));
    if let Some(pod) = strict.read(&ME.id, edit(&written, edits).as_bytes()) {
        assert_eq!(pod, *ME, "a changed record names another pod");
    }
}

fn members(input: &[u8]) {
    let members: Vec<_> = input.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let pods = redis::pods(&members);
    assert!(pods.len() <= members.len());
    assert!(pods.iter().all(|pod| members.iter().any(|member| member == pod.as_str().as_bytes())), "a pod that is no member");
    // Two epochs that are not the same may read the same only where they are no text.
    let epochs: HashSet<_> = members.iter().map(|member| redis::epoch(member)).collect();
    let texts: HashSet<_> = members.iter().filter_map(|member| std::str::from_utf8(member).ok()).collect();
    assert!(epochs.len() >= texts.len());
}

fn texts(text: &str) {
    if let Some((id, address)) = redis::connection(text) {
        assert!(
            [&id, &address].iter().all(|part| !part.contains(char::is_whitespace)),
            "more than one word: {id:?}, {address:?}"
        );
        assert_eq!(redis::connection(&format!("id={id} addr={address}")), Some((id, address)));
    }
    // What is in brackets is checked with the configuration.
    if let Some((host, port)) = redis::address(text).filter(|(host, _)| !host.contains(['[', ']'])) {
        let written = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        assert_eq!(redis::address(&written), Some((host, port)), "{written}");
    }
    if let Ok(id) = PodId::parse(text) {
        assert_eq!(redis::pods(&[id.as_str().as_bytes().to_vec()]), [id]);
    }
}

/// No two sessions share a key, and no two routes.
fn keys(input: &[u8]) {
    let parts: [_; 4] = split(input);
    let parts = parts.map(text);
    let sessions: Vec<_> = parts.iter().flat_map(|part| session(part)).collect();
    let keys: HashSet<_> = sessions.iter().flat_map(redis::session_keys).collect();
    assert_eq!(keys.len(), 2 * sessions.iter().collect::<HashSet<_>>().len(), "two sessions have one key: {sessions:?}");
    let routes: HashSet<_> = parts.iter().flat_map(|part| routes(part)).collect();
    let keys: HashSet<_> = routes.iter().map(redis::route_key).collect();
    assert_eq!(keys.len(), routes.len(), "two routes have one key: {routes:?}");
}

fn session(text: &str) -> Option<SessionKey> {
    let mut parts = text.split('\n');
    let (one, other, last) = (parts.next()?, parts.next(), parts.next());
    match (other, last) {
        (Some(agent), Some(user)) => Some(SessionKey::User {
            company: CompanyId::parse(one).ok()?,
            agent: AgentId::parse(agent).ok()?,
            user: UserId::parse(user).ok()?,
        }),
        _ => Some(SessionKey::Admin { admin: AdminId::parse(one).ok()? }),
    }
}

fn routes(text: &str) -> Option<RouteKey> {
    let mut parts = text.split('\n');
    let (company, agent) = (parts.next()?, parts.next()?);
    let scope = |text: &str| text == "*";
    match parts.next() {
        None => Some(RouteKey::Agents {
            company: if scope(company) { Scope::Any } else { Scope::Only(CompanyId::parse(company).ok()?) },
            agent: if scope(agent) { Scope::Any } else { Scope::Only(AgentId::parse(agent).ok()?) },
        }),
        Some("") => Some(RouteKey::Chats { company: CompanyId::parse(company).ok()?, agent: AgentId::parse(agent).ok()? }),
        Some(chat) => Some(RouteKey::Messages {
            company: CompanyId::parse(company).ok()?,
            agent: AgentId::parse(agent).ok()?,
            chat: ChatId::parse(chat).ok()?,
        }),
    }
}
