use std::sync::LazyLock;

use bytes::Bytes;
use daisi_ws_domain::{
    claims::{AdminClaims, Claims, UserClaims},
    event::{Address, Payload, StreamId},
    gap::{Gap, GapCause},
    ids::{AdminId, AgentId, ChatId, CompanyId, UserId},
    moving::MoveReason,
    session::{KillClaim, LockOwner},
};

use super::*;
use crate::{
    application::hub::mailbox::MailboxLimits,
    config::DropPolicy,
    ports::PodLoad,
    runtime::workers::{Worker, Workers},
};

/// Where sessions live of which it does not matter.
fn anywhere() -> &'static Arc<Worker> {
    static WORKERS: LazyLock<Workers> = LazyLock::new(|| Workers::start(1).unwrap());
    WORKERS.first()
}

fn hub() -> Hub {
    Hub::new(Arc::new(Metrics::new().unwrap()))
}

fn enter(hub: &Hub, claims: Claims, connection: &str) -> Arc<Session> {
    let limits = MailboxLimits {
        messages: 10,
        bytes: 10_000,
        burst_bytes: 100_000,
        held_bytes: 1 << 20,
        policy: DropPolicy::DropOldest,
        overflow_timeout: Duration::from_secs(30),
        repair: 0,
    };
    let (pod, connection) = (PodId::parse("pod-a").unwrap(), ConnectionId::parse(connection).unwrap());
    let session = Arc::new(Session::new(claims, pod, connection, limits, "test", anywhere()));
    hub.enter(&session, 100).unwrap();
    hub.join(session.connection(), &session.claims().base_route());
    session
}

fn user(company: &str, agent: &str, user: &str) -> Claims {
    Claims::User(UserClaims {
        company: CompanyId::parse(company).unwrap(),
        agent: AgentId::parse(agent).unwrap(),
        user: UserId::parse(user).unwrap(),
        expires_at: Duration::from_secs(1),
    })
}

fn admin(name: &str, company: Option<&str>) -> Claims {
    let admin = AdminId::parse(name).unwrap();
    Claims::Admin(AdminClaims::new(admin, company, None, None, Duration::from_secs(1)).unwrap())
}

fn event(subject: &str, seq: u64) -> Event {
    Event {
        address: Address::parse("wa", subject).unwrap(),
        payload: Payload::parse(&Bytes::from_static(b"{}")).unwrap(),
        stream: StreamId(1),
        seq,
        stored_at: Duration::ZERO,
        request_id: None,
        traceparent: None,
    }
}

fn deliver(hub: &Hub, event: &Event) -> Delivered {
    hub.deliver([event], Path::Local)[0]
}

#[test]
fn who_can_move_is_counted_while_here_and_asked_once_and_not_after_a_move() {
    let hub = hub();
    let session = |connection: &str, can_move| {
        let session = enter(&hub, user("acme", "a1", connection), connection);
        hub.remove(session.connection());
        let session = Arc::new(Arc::into_inner(session).unwrap().that_can_move(can_move));
        hub.enter(&session, 100).unwrap();
        session
    };
    let [mover, moved, other] = [("mover", true), ("moved", true), ("other", false)].map(|(id, can)| session(id, can));
    assert_eq!((hub.movers(), hub.load()), (2, PodLoad { sockets: 3, draining: false }));
    assert!(!mover.may_move(), "it has no lock yet");
    [&mover, &moved, &other].iter().for_each(|session| session.set_locked(Instant::now(), Duration::from_secs(30)));
    moved.set_moved();
    assert_eq!([&mover, &moved, &other].map(|session| session.may_move()), [true, false, false]);
    assert!(mover.ask_to_move(MoveReason::Rebalance, Duration::from_secs(15)) && !mover.may_move());
    assert!(moved.ask_to_move(MoveReason::Drain, Duration::from_secs(15)), "a pod that goes asks everybody");
    hub.remove(mover.connection());
    hub.evict(moved.connection(), CloseReason::Moved);
    hub.remove(moved.connection());
    hub.stop_admitting();
    assert_eq!((hub.movers(), hub.load()), (0, PodLoad { sockets: 1, draining: true }));
}

#[test]
fn events_reach_just_the_sessions_of_their_company_and_agent() {
    let hub = hub();
    let (a, b) = (enter(&hub, user("acme", "a1", "u"), "1"), enter(&hub, user("acme", "a2", "u"), "2"));
    let c = enter(&hub, user("other", "a1", "u"), "3");
    assert_eq!(deliver(&hub, &event("wa.acme.a1.chats", 1)), Delivered::To(1));
    assert_eq!((a.mailbox().len(), b.mailbox().len(), c.mailbox().len()), (1, 0, 0));
    assert_eq!(deliver(&hub, &event("wa.nobody.a1.chats", 2)), Delivered::Nobody);
}

#[test]
fn messages_reach_those_that_selected_the_chat() {
    let hub = hub();
    let (a, b) = (enter(&hub, user("acme", "a1", "u"), "1"), enter(&hub, user("acme", "a1", "v"), "2"));
    let route = a.chat_route(&ChatId::parse("c.1").unwrap()).unwrap();
    hub.join(a.connection(), &route);
    assert_eq!(deliver(&hub, &event("wa.acme.a1.messages.c.1", 1)), Delivered::To(1));
    hub.leave(a.connection(), &route);
    assert_eq!(deliver(&hub, &event("wa.acme.a1.messages.c.1", 2)), Delivered::Nobody);
    assert_eq!((a.mailbox().len(), b.mailbox().len()), (1, 0));
}

#[test]
fn agent_events_reach_every_admin_whose_scope_covers_them_and_no_user() {
    let hub = hub();
    let sees_all = enter(&hub, admin("root", None), "1");
    let sees_acme = enter(&hub, admin("a", Some("acme")), "2");
    let sees_other = enter(&hub, admin("b", Some("other")), "3");
    let operator = enter(&hub, user("acme", "a1", "u"), "4");
    assert_eq!(deliver(&hub, &event("wa.acme.a1.agents", 1)), Delivered::To(2));
    let lens = [&sees_all, &sees_acme, &sees_other, &operator].map(|s| s.mailbox().len());
    assert_eq!(lens, [1, 1, 0, 0]);
}

#[test]
fn g1_a_redelivery_is_shown_to_nobody_again() {
    let hub = hub();
    let a = enter(&hub, user("acme", "a1", "u"), "1");
    deliver(&hub, &event("wa.acme.a1.chats", 1));
    assert_eq!(deliver(&hub, &event("wa.acme.a1.chats", 1)), Delivered::Before);
    assert_eq!(a.mailbox().len(), 1);
}

#[test]
fn g1_who_comes_back_to_a_chat_is_shown_no_redelivery_and_who_is_new_there_is() {
    for has_company in [false, true] {
        let hub = hub();
        let a = enter(&hub, user("acme", "a1", "u"), "1");
        let b = enter(&hub, user("acme", "a1", "v"), "2");
        let event = event("wa.acme.a1.messages.c1", 1);
        let chat = event.address.routes()[0].clone();
        hub.join(a.connection(), &chat);
        if has_company {
            hub.join(b.connection(), &chat);
        }
        deliver(&hub, &event);
        hub.leave(a.connection(), &chat);
        hub.join(a.connection(), &chat);
        assert_eq!(deliver(&hub, &event), Delivered::Before);
        let new = enter(&hub, user("acme", "a1", "w"), "3");
        hub.join(new.connection(), &chat);
        assert_eq!(deliver(&hub, &event), Delivered::To(1));
        assert_eq!((a.mailbox().len(), b.mailbox().len(), new.mailbox().len()), (1, usize::from(has_company), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn g1_who_comes_back_to_a_chat_after_a_while_is_shown_no_redelivery() {
    let hub = hub();
    let (a, stays) = (enter(&hub, user("acme", "a1", "u"), "1"), enter(&hub, user("acme", "a1", "v"), "2"));
    let event = event("wa.acme.a1.messages.c1", 1);
    let chat = event.address.routes()[0].clone();
    hub.join(a.connection(), &chat);
    hub.join(stays.connection(), &chat);
    deliver(&hub, &event);
    hub.leave(a.connection(), &chat);
    tokio::time::advance(Duration::from_secs(60)).await;
    hub.join(a.connection(), &chat);
    assert_eq!(deliver(&hub, &event), Delivered::Before);
    assert_eq!(a.mailbox().len(), 1);
}

#[test]
fn a_late_exit_of_an_old_socket_leaves_its_successor() {
    let hub = hub();
    let (_, new) = (enter(&hub, user("acme", "a1", "u"), "old"), enter(&hub, user("acme", "a1", "u"), "new"));
    let old = ConnectionId::parse("old").unwrap();
    assert!(hub.remove(&old) && !hub.remove(&old));
    assert_eq!(deliver(&hub, &event("wa.acme.a1.chats", 1)), Delivered::To(1));
    assert_eq!(new.mailbox().len(), 1);
}

#[test]
fn an_evicted_session_gets_nothing_more() {
    let hub = hub();
    let a = enter(&hub, user("acme", "a1", "u"), "1");
    hub.evict(a.connection(), CloseReason::SessionReplaced);
    assert_eq!(a.close_reason(), Some(CloseReason::SessionReplaced));
    assert_eq!(deliver(&hub, &event("wa.acme.a1.chats", 1)), Delivered::Nobody);
}

#[test]
fn a_kill_names_its_victim_and_spares_the_others() {
    let hub = hub();
    let (old, new) = (enter(&hub, user("acme", "a1", "u"), "old"), enter(&hub, user("acme", "a1", "u"), "new"));
    let newest = enter(&hub, user("acme", "a1", "u"), "newest");
    let me = PodId::parse("pod-a").unwrap();
    let kill = |victim: Option<LockOwner>, new_pod: &str| -> Vec<String> {
        let new_pod = PodId::parse(new_pod).unwrap();
        let killed = hub.kill(&Kill { key: old.key().clone(), new_pod, connection: None, victim, claim: KillClaim::Newer }, &me);
        killed.sessions.iter().map(|(session, _)| session.connection().to_string()).collect()
    };
    assert!(kill(Some(LockOwner::new(PodId::parse("pod-b").unwrap(), old.connection().clone())), "pod-a").is_empty());
    assert!(kill(None, "pod-a").is_empty());
    assert_eq!([&old, &new, &newest].map(|session| session.close_reason()), [None; 3]);
    assert_eq!(kill(Some(old.owner().clone()), "pod-a"), ["old"]);
    assert_eq!(kill(None, "old-pod"), ["new", "newest"]);
    assert_eq!([&old, &new, &newest].map(|session| session.close_reason()), [Some(CloseReason::SessionReplaced); 3]);
    assert!(hub.is_empty() && !hub.wants(&old.claims().base_route()));
}

#[test]
fn routes_change_when_the_first_comes_and_the_last_goes() {
    let hub = hub();
    let (a, b) = (enter(&hub, user("acme", "a1", "u"), "1"), enter(&hub, user("acme", "a1", "v"), "2"));
    let route = a.claims().base_route();
    assert_eq!(hub.take_changed().len(), 1);
    hub.remove(a.connection());
    assert!(hub.take_changed().is_empty() && hub.wants(&route));
    hub.remove(b.connection());
    assert!(hub.take_changed().contains(&route) && !hub.wants(&route));
}

#[test]
fn a_full_or_draining_pod_lets_nobody_in() {
    let hub = hub();
    let a = enter(&hub, user("acme", "a1", "u"), "1");
    assert_eq!(hub.enter(&a, 1), Err(Refusal::Full));
    hub.stop_admitting();
    assert_eq!(hub.enter(&a, 100), Err(Refusal::Draining));
}

#[test]
fn a_gap_is_told_to_those_it_concerns() {
    let hub = hub();
    let (a, b) = (enter(&hub, user("acme", "a1", "u"), "1"), enter(&hub, user("other", "a1", "u"), "2"));
    assert_eq!(hub.announce(Some(&a.claims().base_route()), Gap::of(3, GapCause::GivenUp)), 1);
    assert_eq!((a.mailbox().len(), b.mailbox().len()), (1, 0));
    assert_eq!(hub.announce(None, Gap::unknown(GapCause::PodResumed)), 2);
}

mod fan_out;
