//! Thirty sessions over three pods, a thousand events, and pods that die or freeze meanwhile.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;

use super::RealFleet;
use crate::support::{
    client::{Client, Seen},
    fixture::{admin_token, user_token},
};

/// Every agent has one session a pod, each with its own selected chat; besides there is an admin a pod.
const AGENTS: usize = 9;
const QUIET: Duration = Duration::from_secs(2);

struct Session {
    pod: usize,
    name: String,
    client: Client,
    expected: BTreeSet<u64>,
}

impl Session {
    /// Does an event for this kind, agent and chat concern it?
    fn concerned(&self, kind: &str, agent: usize, chat: usize) -> bool {
        match kind {
            "chats" => self.name.starts_with(&format!("agent-{agent}/")),
            "messages" => self.name == format!("agent-{agent}/{chat}"),
            _ => self.name.starts_with("admin"),
        }
    }
}

async fn sessions(fleet: &RealFleet) -> Vec<Session> {
    let mut sessions = Vec::new();
    for (pod, at) in fleet.pods.iter().enumerate() {
        for agent in 0..AGENTS {
            let token = user_token("acme", &format!("agent-{agent}"), &format!("user-{pod}@acme.example"));
            let mut client = at.connect(&format!("/ws/acme/agent-{agent}"), &token).await;
            client.select_chat(&format!("chat.{pod}@s.whatsapp.net")).await;
            sessions.push(Session { pod, name: format!("agent-{agent}/{pod}"), client, expected: BTreeSet::new() });
        }
        let client = at.connect("/ws/admin", &admin_token(&format!("admin-{pod}"))).await;
        sessions.push(Session { pod, name: format!("admin-{pod}"), client, expected: BTreeSet::new() });
    }
    assert_eq!(sessions.len(), 30);
    sessions
}

/// Publishes so many events of all kinds, and notes who should see each.
async fn publish(fleet: &RealFleet, sessions: &mut [Session], events: std::ops::Range<usize>) {
    for n in events {
        let (agent, chat) = (n % AGENTS, n / AGENTS % 3);
        let (kind, subject) = match n % 5 {
            0 | 1 => ("chats", format!("wa.acme.agent-{agent}.chats")),
            2 | 3 => ("messages", format!("wa.acme.agent-{agent}.messages.chat.{chat}@s.whatsapp.net")),
            _ => ("agents", format!("wa.acme.agent-{agent}.agents")),
        };
        let seq = fleet.publish(&subject, &format!("{{\"n\":{n},\"id\":9007199254740993}}")).await;
        sessions.iter_mut().filter(|session| session.concerned(kind, agent, chat)).for_each(|session| {
            session.expected.insert(seq);
        });
    }
}

/// What a session has seen.
struct Ledger<'a> {
    session: &'a Session,
    got: BTreeSet<u64>,
    doubled: usize,
    /// A gap was announced, or the socket closed.
    told: bool,
}

/// The ledgers of the sessions that `of` picks, once all of them have been silent for a while.
async fn ledgers<'a>(sessions: &'a mut [Session], of: impl Fn(&Session) -> bool) -> Vec<Ledger<'a>> {
    join_all(sessions.iter_mut().filter(|session| of(session)).map(ledger)).await
}

async fn ledger(session: &mut Session) -> Ledger<'_> {
    let (mut got, mut doubled, mut told) = (BTreeSet::new(), 0, false);
    for seen in session.client.drain(QUIET).await {
        match seen {
            Seen::Frame(frame, text) if frame["type"] == "event" => {
                assert!(text.contains("\"id\":9007199254740993"), "{text}");
                doubled += usize::from(!got.insert(frame["seq"].as_u64().unwrap()));
            }
            Seen::Frame(frame, _) if frame["type"] == "gap" => told = true,
            Seen::Closed(_) => told = true,
            other => panic!("{}: {other:?}", session.name),
        }
    }
    Ledger { session, got, doubled, told }
}

#[tokio::test]
async fn each_of_thirty_sessions_gets_exactly_its_own_of_a_thousand_events() {
    let fleet = RealFleet::start(3).await;
    let mut sessions = sessions(&fleet).await;
    publish(&fleet, &mut sessions, 0..1000).await;
    fleet.all_settled(Duration::from_secs(30)).await;
    for Ledger { session, got, doubled, told } in ledgers(&mut sessions, |_| true).await {
        assert_eq!((got, doubled, told), (session.expected.clone(), 0, false), "{}", session.name);
    }
}

#[tokio::test]
async fn with_one_pod_killed_and_one_frozen_the_others_lose_nothing_and_nothing_stays_unsettled() {
    let fleet = RealFleet::start(3).await;
    let mut sessions = sessions(&fleet).await;
    publish(&fleet, &mut sessions, 0..300).await;
    fleet.pods[1].signal("KILL");
    publish(&fleet, &mut sessions, 300..600).await;
    fleet.pods[2].signal("STOP");
    publish(&fleet, &mut sessions, 600..1000).await;
    // What the dead and the frozen one had taken is delivered again after the ack wait; the frozen one is found to be dead
    // meanwhile.
    fleet.all_settled(Duration::from_secs(60)).await;
    for Ledger { session, got, doubled, told } in ledgers(&mut sessions, |session| session.pod == 0).await {
        assert_eq!((got, doubled, told), (session.expected.clone(), 0, false), "{}", session.name);
    }
    // The frozen one thaws: its sessions miss something and are told so, or have everything; nobody gets what is another's.
    fleet.pods[2].signal("CONT");
    for Ledger { session, got, told, .. } in ledgers(&mut sessions, |session| session.pod == 2).await {
        assert!(got.is_subset(&session.expected), "{} got others' events", session.name);
        assert!(told || got == session.expected, "{} lost events silently", session.name);
    }
    let seq = fleet.publish("wa.acme.agent-0.chats", "{\"id\":9007199254740993}").await;
    let alive = |session: &Session| session.pod != 1 && session.name.starts_with("agent-0/");
    for Ledger { session, got, .. } in ledgers(&mut sessions, alive).await {
        assert!(got.contains(&seq), "{}", session.name);
    }
    fleet.all_settled(Duration::from_secs(30)).await;
}
