use super::*;
use crate::{
    history::{End, PodLife, Seen, Selected, Trouble},
    plan::Who,
};

const SECOND: Duration = Duration::from_secs(1);
const CHATS: Topic = Topic::Chats { company: 0, agent: 0 };
const MESSAGES: Topic = Topic::Messages { company: 0, agent: 0, chat: 1 };

fn moment(second: u64) -> Moment {
    Moment { at: Duration::from_secs(second), order: second }
}

/// One socket, open from second 1 on, and an event at each of seconds 10 to 13, all settled a second later and read.
fn history() -> History {
    let event = |second: u64| Published {
        topic: CHATS,
        stored: moment(second),
        acked: Some(moment(second + 1)),
        acked_by: 0,
        terminated: None,
        terminated_by: 0,
        redelivered: false,
    };
    let seen = |seq: u64| (moment(seq + 10), Seen { seq, number: seq, topic: CHATS.code(), replayed: false });
    History {
        published: (10..14).map(event).collect(),
        sockets: vec![Socket { ready: Some(moment(1)), events: (1..=4).map(seen).collect(), ..Socket::default() }],
        pods: vec![PodLife { id: "pod-0".to_owned(), slot: 0, from: Duration::ZERO, until: None, killed: false }],
        ..History::default()
    }
}

fn judge_as(history: &History, sound: (Duration, Duration), calm: bool) -> Vec<&'static str> {
    let people = [Person { who: Who::User { company: 0, agent: 0, user: 0 }, pipe: 1024 }];
    let judgement = Judgement { people: &people, now: 60 * SECOND, sound, memory: 20 * SECOND, calm };
    account(history, &judgement).0.into_iter().map(|(invariant, _)| invariant).collect()
}

fn judge(history: &History) -> Vec<&'static str> {
    judge_as(history, (50 * SECOND, 55 * SECOND), false)
}

/// The history without one event on its socket.
fn without(seq: u64) -> History {
    let mut history = history();
    history.sockets[0].events.retain(|(_, seen)| seen.seq != seq);
    history
}

#[test]
fn a_sound_history_is_found_sound() {
    assert_eq!(judge(&history()), Vec::<&str>::new());
}

#[test]
fn an_event_that_never_came_is_lost_unless_a_gap_is_about_it() {
    assert_eq!(judge(&without(2)), [NOTHING_IS_LOST]);
    let gap = |range| Gap { range, dropped: None, reason: "given_up".to_owned() };
    for (range, second, wrong) in [
        (Some((2, 2)), 30, 0),
        (Some((3, 9)), 30, 1),
        // One of unknown range is about what came before it, and not long before.
        (None, 20, 0),
        (None, 5, 1),
        (None, 40, 1),
    ] {
        let mut history = without(2);
        history.sockets[0].gaps.push((moment(second), gap(range)));
        assert_eq!(judge(&history).len(), wrong, "{range:?} at {second}");
    }
}

#[test]
fn an_event_is_gone_with_its_socket_only_if_that_ended_before_everybody_had_it() {
    let end = |second| Some((moment(second), End::Closed(1001)));
    let mut history = without(4);
    history.sockets[0].ended = end(15);
    assert_eq!(judge(&history), Vec::<&str>::new());
    history.sockets[0].ended = end(20);
    assert_eq!(judge(&history), [NOTHING_IS_LOST]);
    history.troubles.push(Trouble { kind: TroubleKind::Frozen, slot: Some(0), from: 12 * SECOND, until: None });
    assert_eq!(judge(&history), Vec::<&str>::new());
}

#[test]
fn what_a_pod_could_not_say_before_it_ended_is_held_against_nobody() {
    let mut history = without(4);
    history.pods[0].until = Some(16 * SECOND);
    assert_eq!(judge(&history), Vec::<&str>::new(), "it had no time");
    history.pods[0].until = Some(30 * SECOND);
    assert_eq!(judge(&history), [NOTHING_IS_LOST]);
    for (until, wrong) in [(None, 0), (Some(20 * SECOND), 1)] {
        history.troubles = vec![Trouble { kind: TroubleKind::Links, slot: Some(0), from: 12 * SECOND, until }];
        assert_eq!(judge(&history).len(), wrong, "{until:?}");
    }
}

#[test]
fn messages_are_owed_while_their_chat_is_selected() {
    let mut history = without(4);
    history.published[3].topic = MESSAGES;
    let selected = |from, until: Option<u64>| Selected { chat: 1, from: moment(from), until: until.map(moment) };
    history.sockets[0].asked.insert(1);
    history.sockets[0].chats = vec![selected(2, Some(12))];
    assert_eq!(judge(&history), Vec::<&str>::new());
    history.sockets[0].chats.push(selected(12, None));
    assert_eq!(judge(&history), [NOTHING_IS_LOST]);
}

#[test]
fn what_comes_twice_or_is_not_ones_own_is_seen() {
    let mut history = history();
    let again = history.sockets[0].events[1];
    history.sockets[0].events.push(again);
    // It also comes after later ones, of the only pod.
    assert_eq!(judge(&history), [NOTHING_IS_DOUBLED, ORDER_IS_KEPT]);
    for (seq, number, topic) in [(9, 9, CHATS), (1, 2, CHATS), (1, 1, MESSAGES)] {
        let mut history = without(1);
        history.sockets[0].events.insert(0, (moment(11), Seen { seq, number, topic: topic.code(), replayed: false }));
        assert!(judge(&history).contains(&NOTHING_IS_MISDELIVERED), "{seq} {number} {topic:?}");
    }
    let mut history = without(4);
    history.published[3].topic = Topic::Chats { company: 0, agent: 1 };
    assert_eq!(judge(&history), Vec::<&str>::new(), "it is not owed");
    let seen = Seen { seq: 4, number: 4, topic: history.published[3].topic.code(), replayed: false };
    history.sockets[0].events.push((moment(14), seen));
    assert_eq!(judge(&history), [NOTHING_IS_MISDELIVERED]);
    let mut history = self::history();
    history.sockets[0].nonsense.push("{".to_owned());
    assert_eq!(judge(&history), [NOTHING_IS_MISDELIVERED]);
}

#[test]
fn more_ascending_rows_than_pods_are_out_of_order_unless_something_came_again() {
    let mut history = history();
    history.sockets[0].events.swap(1, 2);
    assert_eq!(judge(&history), [ORDER_IS_KEPT]);
    history.published[1].redelivered = true;
    assert_eq!(judge(&history), Vec::<&str>::new());
    history.published[1].redelivered = false;
    history.sockets[0].events[2].1.replayed = true;
    assert_eq!(judge(&history), Vec::<&str>::new(), "it was read again");
    history.sockets[0].events[2].1.replayed = false;
    history.pods.push(history.pods[0].clone());
    assert_eq!(judge(&history), Vec::<&str>::new());
    assert_eq!(longest_fall(&[5, 1, 4, 2, 3]), 3);
}

#[test]
fn a_gap_where_nothing_was_broken_is_seen() {
    let mut history = history();
    let gap = |reason: &str| Gap { range: None, dropped: None, reason: reason.to_owned() };
    history.sockets[0].gaps.push((moment(20), gap("slow_client")));
    let sound = (50 * SECOND, 55 * SECOND);
    assert_eq!(judge_as(&history, sound, true), Vec::<&str>::new());
    history.sockets[0].gaps.push((moment(20), gap("pod_resumed")));
    assert_eq!(judge_as(&history, sound, true), [NO_GAP_WITHOUT_A_REASON]);
    assert_eq!(judge_as(&history, sound, false), Vec::<&str>::new());
}

#[test]
fn what_is_stored_while_nothing_is_broken_comes_and_soon() {
    let sound = (9 * SECOND, 20 * SECOND);
    assert_eq!(judge_as(&history(), sound, false), Vec::<&str>::new());
    let mut history = without(3);
    let gap = Gap { range: Some((3, 3)), dropped: Some(1), reason: "given_up".to_owned() };
    history.sockets[0].gaps.push((moment(20), gap));
    assert_eq!(judge_as(&history, sound, false), [EVERYTHING_FLOWS_AGAIN]);
    let mut history = self::history();
    history.sockets[0].events[3].0 = moment(20);
    assert_eq!(judge_as(&history, sound, false), [EVERYTHING_FLOWS_AGAIN]);
}
