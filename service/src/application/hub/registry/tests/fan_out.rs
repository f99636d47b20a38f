//! Events for sessions that live on workers.

use std::sync::mpsc;

use super::*;
use crate::application::hub::mailbox::item::Item;

const CHATS: &str = "wa.acme.a1.chats";

/// Holds a worker up until it is dropped: nothing else runs there meanwhile.
struct Held(#[expect(dead_code, reason = "its end lets the worker go on")] mpsc::Sender<()>);

fn hold(worker: &Arc<Worker>) -> Held {
    let (release, released) = mpsc::channel::<()>();
    let (holds, held) = mpsc::channel();
    worker.spawn(async move {
        holds.send(()).unwrap();
        let _ = released.recv();
    });
    held.recv().unwrap();
    Held(release)
}

fn limits(policy: DropPolicy) -> MailboxLimits {
    MailboxLimits {
        messages: 10_000,
        bytes: 1_000_000,
        burst_bytes: 10_000_000,
        held_bytes: 1 << 30,
        policy,
        overflow_timeout: Duration::from_secs(30),
        repair: 0,
    }
}

/// Users of one desk on a worker.
fn enter_on(hub: &Hub, worker: &Arc<Worker>, count: usize, limits: MailboxLimits) -> Vec<Arc<Session>> {
    let session = |_| {
        let (pod, connection) = (PodId::parse("pod-a").unwrap(), ConnectionId::from_random(rand::random()));
        Arc::new(Session::new(user("acme", "a1", "u"), pod, connection, limits, "test", worker))
    };
    let sessions: Vec<Arc<Session>> = (0..count).map(session).collect();
    for session in &sessions {
        hub.enter(session, 1_000_000).unwrap();
        assert!(hub.join(session.connection(), &session.claims().base_route()));
    }
    sessions
}

/// Waits until what was handed to a worker before has been done.
fn caught_up(hub: &Hub, sessions: &[Arc<Session>]) {
    sessions.iter().for_each(|session| hub.catch_up(session));
}

/// Waits until each session has something, for which its worker has to run.
fn filled(sessions: &[Arc<Session>]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while sessions.iter().any(|session| session.mailbox().is_empty()) {
        assert!(Instant::now() < deadline, "the worker does not fill its mailboxes");
        std::thread::yield_now();
    }
}

fn seqs(session: &Session) -> Vec<u64> {
    let items = session.mailbox().take(usize::MAX).items;
    items.iter().map(|item| if let Item::Event(event) = item { event.seq } else { 0 }).collect()
}

#[test]
fn an_event_for_many_sessions_waits_for_their_cores_and_for_no_other() {
    let (hub, workers) = (hub(), Workers::start(2).unwrap());
    let [here, there] = [0, 1].map(|worker| enter_on(&hub, &workers.team()[worker], 100, limits(DropPolicy::DropOldest)));
    let held = hold(workers.first());
    assert_eq!(deliver(&hub, &event(CHATS, 1)), Delivered::To(200));
    filled(&there);
    assert!(here.iter().all(|session| session.mailbox().is_empty()), "the worker that is held has filled mailboxes");
    drop(held);
    filled(&here);
    assert!(here.iter().chain(&there).all(|session| seqs(session) == [1]));
}

#[test]
fn what_is_for_one_session_waits_behind_what_is_for_many() {
    let (hub, workers) = (hub(), Workers::start(1).unwrap());
    let sessions = enter_on(&hub, workers.first(), 100, limits(DropPolicy::DropOldest));
    let route = sessions[7].chat_route(&ChatId::parse("c.1").unwrap()).unwrap();
    hub.join(sessions[7].connection(), &route);
    deliver(&hub, &event("wa.acme.a1.messages.c.1", 1));
    assert_eq!(sessions[7].mailbox().len(), 1, "nothing was there to wait behind");
    let held = hold(workers.first());
    deliver(&hub, &event(CHATS, 2));
    deliver(&hub, &event("wa.acme.a1.messages.c.1", 3));
    deliver(&hub, &event(CHATS, 4));
    assert_eq!(sessions[7].mailbox().len(), 1);
    drop(held);
    caught_up(&hub, &sessions);
    assert_eq!(seqs(&sessions[7]), [1, 2, 3, 4]);
    assert!(sessions.iter().filter(|other| !Arc::ptr_eq(other, &sessions[7])).all(|other| seqs(other) == [2, 4]));
}

#[test]
fn a_session_that_leaves_still_has_what_was_on_its_way_and_one_that_joins_has_not() {
    let (hub, workers) = (hub(), Workers::start(1).unwrap());
    let sessions = enter_on(&hub, workers.first(), 100, limits(DropPolicy::DropOldest));
    let held = hold(workers.first());
    deliver(&hub, &event(CHATS, 1));
    hub.evict(sessions[3].connection(), CloseReason::SessionReplaced);
    let late = enter(&hub, user("acme", "a1", "late"), "late");
    assert_eq!(deliver(&hub, &event(CHATS, 2)), Delivered::To(100));
    hub.catch_up(&sessions[3]);
    assert_eq!((seqs(&sessions[3]), seqs(&late), seqs(&sessions[99])), (vec![1], vec![2], vec![1, 2]));
    drop(held);
}

#[test]
fn a_core_that_falls_behind_has_its_work_done_by_who_brings_more() {
    const EVENTS: u64 = 3000;
    let (hub, workers) = (hub(), Workers::start(1).unwrap());
    let sessions = enter_on(&hub, workers.first(), 100, limits(DropPolicy::DropOldest));
    let held = hold(workers.first());
    for seq in 1..=EVENTS {
        deliver(&hub, &event(CHATS, seq));
    }
    let behind = EVENTS - sessions[0].mailbox().len() as u64;
    assert!((1..=512).contains(&behind), "{behind} events wait");
    drop(held);
    caught_up(&hub, &sessions);
    assert!(sessions.iter().all(|session| seqs(session) == (1..=EVENTS).collect::<Vec<_>>()));
}

#[test]
fn a_socket_is_let_write_before_it_gets_more_than_a_few_megabytes() {
    const EVENTS: u64 = 20;
    let (hub, workers) = (hub(), Workers::start(1).unwrap());
    let sessions = enter_on(&hub, workers.first(), 100, MailboxLimits { burst_bytes: 1 << 30, ..limits(DropPolicy::DropOldest) });
    let held = hold(workers.first());
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20));
    for seq in 1..=EVENTS {
        let payload = Payload::parse(&Bytes::from(text.clone())).unwrap();
        deliver(&hub, &Event { payload, ..event(CHATS, seq) });
    }
    // As its task would, whenever it has its turn.
    let (done, taken) = mpsc::channel();
    let session = Arc::clone(&sessions[0]);
    workers.first().spawn(async move {
        let (mut most, mut all) = (0, 0);
        while all < EVENTS {
            let taken = session.mailbox().take(usize::MAX).items.len();
            most = most.max(taken);
            all += taken as u64;
            tokio::task::yield_now().await;
        }
        done.send(most).unwrap();
    });
    drop(held);
    let most = taken.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!((1..=4).contains(&most), "{most}");
}

#[test]
fn a_session_whose_mailbox_runs_over_is_ended_and_takes_nothing_more() {
    let (hub, workers) = (hub(), Workers::start(1).unwrap());
    let sessions =
        enter_on(&hub, workers.first(), 100, MailboxLimits { bytes: 300, burst_bytes: 1500, ..limits(DropPolicy::Block) });
    for seq in 1..=20 {
        deliver(&hub, &event(CHATS, seq));
    }
    caught_up(&hub, &sessions);
    for session in &sessions {
        assert_eq!(session.close_reason(), Some(CloseReason::SlowClient));
        let taken = seqs(session);
        assert!(!taken.is_empty() && taken.len() < 10, "{taken:?}");
    }
}

#[test]
fn whoever_joins_and_leaves_the_others_get_every_event_once() {
    let (hub, workers) = (hub(), Workers::start(2).unwrap());
    let mut sessions: Vec<_> =
        (0..60).flat_map(|n| enter_on(&hub, &workers.team()[n % 2], 1, limits(DropPolicy::DropOldest))).collect();
    for seq in 1..=50 {
        if seq % 3 == 0 {
            sessions.push(enter(&hub, user("acme", "a1", "u"), &format!("elsewhere-{seq}")));
        }
        let gone = sessions.swap_remove((seq as usize * 7) % sessions.len());
        assert!(hub.remove(gone.connection()));
        assert_eq!(deliver(&hub, &event(CHATS, seq)), Delivered::To(sessions.len()));
        caught_up(&hub, &sessions);
        assert!(sessions.iter().all(|session| seqs(session) == [seq]), "event {seq}");
        caught_up(&hub, std::slice::from_ref(&gone));
        assert!(!seqs(&gone).contains(&seq));
    }
}
