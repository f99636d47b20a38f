use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::{
    identity::{Kind, Subject},
    traffic::ledger::Entry,
};

const STEP: Duration = Duration::from_millis(100);

struct Story {
    start: Instant,
    published: Vec<Published>,
    entries: Vec<Entry>,
    /// The newest socket.
    socket: u32,
}

impl Story {
    fn new(events: u32) -> Self {
        let start = Instant::now();
        let event = |number: u32| Published {
            number: number.into(),
            subject: Subject { company: "acme".into(), agent: "a1".into(), kind: Kind::Chats },
            seq: u64::from(number) + 100,
            started: start + STEP * (number + 1),
            stored: start + STEP * (number + 1) + STEP / 10,
        };
        let mut story = Self { start, published: (0..events).map(event).collect(), entries: Vec::new(), socket: 0 };
        story.see(0, Seen::Ready("pod-a".into()));
        story
    }

    /// On the newest socket, which a `ready` begins.
    fn see(&mut self, step: u32, seen: Seen) {
        self.socket += u32::from(matches!(seen, Seen::Ready(_)));
        self.see_on(self.socket, step, seen);
    }

    fn see_on(&mut self, socket: u32, step: u32, seen: Seen) {
        self.entries.push(Entry { at: self.start + STEP * step + STEP / 2, socket, seen });
    }

    fn get(&mut self, numbers: &[u64]) {
        self.get_on(self.socket, numbers);
    }

    fn get_on(&mut self, socket: u32, numbers: &[u64]) {
        for number in numbers {
            let step = u32::try_from(*number).unwrap() + 1;
            self.see_on(socket, step, Seen::Event { seq: number + 100, number: *number, subject: "wa.acme.a1.chats".into() });
        }
    }

    /// Asked to move, the session has a second socket ten steps later, which goes on after this event, and the first ends five
    /// steps after that.
    fn moves(&mut self, step: u32, cursor: u64) {
        self.see(step, Seen::Asked);
        self.see(step + 10, Seen::Ready("pod-b".into()));
        self.see(step + 10, Seen::Resumed(cursor + 100));
        self.see_on(1, step + 15, Seen::Moved);
    }

    fn judge(self, fault: Option<(u32, u32)>) -> Verdict {
        let who = Who::User { company: "acme".into(), agent: "a1".into(), user: "u".into(), chat: None };
        let ended = self.start + STEP * 60;
        let fault = fault.map(|(began, end)| FaultTime {
            began: self.start + STEP * began,
            ended: self.start + STEP * end,
            stalls: true,
            pod: None,
        });
        let ledgers = vec![Ledger { who, entries: self.entries }];
        Verdict::of(&Evidence { ledgers, published: self.published, started: self.start, ended }, fault)
    }
}

#[test]
fn a_whole_ledger_is_clean() {
    let mut story = Story::new(5);
    story.get(&[0, 1, 2, 3, 4]);
    let verdict = story.judge(None);
    assert!(verdict.is_clean() && verdict.deliveries == 5 && verdict.order_depth == 1, "{}", verdict.describe());
}

#[test]
fn what_is_missing_on_a_socket_that_stands_is_lost() {
    let mut story = Story::new(5);
    story.get(&[0, 1, 3, 4]);
    let verdict = story.judge(None);
    assert_eq!((verdict.lost, verdict.is_clean()), (1, false));
    assert!(verdict.describe().contains("event 2"), "{}", verdict.describe());
}

#[test]
fn what_a_gap_covers_is_announced_and_what_it_does_not_is_lost() {
    let mut story = Story::new(6);
    story.get(&[0, 3, 5]);
    story.see(7, Seen::Gap { range: Some((101, 102)), reason: "slow_client".into() });
    let verdict = story.judge(None);
    assert_eq!((verdict.announced, verdict.lost, verdict.gaps), (2, 1, 1));
}

#[test]
fn a_gap_of_unknown_size_covers_nothing_from_long_before_the_fault_or_after_itself() {
    let mut story = Story::new(50);
    story.get(&(1..40).collect::<Vec<_>>());
    // Missing: 0, long before the fault; 40 to 44, in it; 45 to 49, after the gap.
    story.see(45, Seen::Gap { range: None, reason: "pod_resumed".into() });
    let verdict = story.judge(Some((40, 45)));
    assert_eq!((verdict.announced, verdict.lost), (5, 6), "{}", verdict.describe());
}

#[test]
fn what_was_on_its_way_when_the_socket_ended_went_along_and_what_is_older_is_lost() {
    let mut story = Story::new(30);
    story.get(&(1..29).collect::<Vec<_>>());
    story.see(30, Seen::Closed(Some(1001)));
    let verdict = story.judge(None);
    assert_eq!((verdict.with_socket, verdict.lost, verdict.closes[&1001]), (1, 1, 1), "{}", verdict.describe());
}

#[test]
fn what_came_with_the_next_socket_is_resumed_and_neither_gone_nor_announced() {
    let mut story = Story::new(30);
    story.get(&(0..25).collect::<Vec<_>>());
    story.see(30, Seen::Gap { range: Some((126, 126)), reason: "given_up".into() });
    story.see(31, Seen::Closed(Some(1001)));
    story.see(32, Seen::Ready("pod-b".into()));
    story.get(&[25, 26, 27, 28, 29]);
    let verdict = story.judge(None);
    let missed = verdict.lost + verdict.with_socket + verdict.announced + verdict.away;
    assert_eq!((verdict.resumed, missed, verdict.repeated), (5, 0, 0), "{}", verdict.describe());
}

#[test]
fn twice_is_doubled_and_on_the_next_socket_repeated() {
    let mut story = Story::new(2);
    story.get(&[0, 0, 1]);
    story.see(4, Seen::Closed(None));
    story.see(5, Seen::Ready("pod-b".into()));
    story.get(&[1]);
    let verdict = story.judge(None);
    assert_eq!((verdict.doubled, verdict.repeated), (1, 1));
}

#[test]
fn what_both_sockets_of_a_move_bring_is_repeated_and_nothing_is_missing() {
    let mut story = Story::new(50);
    story.moves(10, 12);
    story.get_on(1, &(0..22).collect::<Vec<_>>());
    story.get_on(2, &(13..50).collect::<Vec<_>>());
    let verdict = story.judge(None);
    let missed = verdict.lost + verdict.with_socket + verdict.announced + verdict.away;
    assert_eq!((missed, verdict.doubled, verdict.repeated), (0, 0, 9), "{}", verdict.describe());
    assert_eq!((verdict.moves.moved, &verdict.closes), (1, &BTreeMap::from([(1001, 1)])));
    // What came between the second's `ready` and the first's end came on the second alone.
    assert!(verdict.resumed > 0, "{}", verdict.describe());
}

#[test]
fn twice_on_one_socket_of_a_move_is_doubled_and_so_is_what_its_cursor_says_was_there() {
    let mut story = Story::new(50);
    story.moves(10, 12);
    story.get_on(1, &(0..22).collect::<Vec<_>>());
    story.get_on(2, &(12..50).chain([30]).collect::<Vec<_>>());
    let verdict = story.judge(None);
    assert_eq!((verdict.doubled, verdict.repeated), (2, 9), "{}", verdict.describe());
    assert!(verdict.describe().contains("event 12 (seq 112) came again, before the cursor"), "{}", verdict.describe());
}

#[test]
fn what_the_first_socket_of_a_move_brought_and_the_second_owed_is_lost_there() {
    let mut story = Story::new(50);
    story.moves(10, 12);
    story.get_on(1, &(0..23).collect::<Vec<_>>());
    story.get_on(2, &(13..22).chain(23..50).collect::<Vec<_>>());
    assert_eq!(story.judge(None).lost, 1);
}

#[test]
fn what_no_socket_of_a_move_brought_is_lost_and_not_away() {
    let mut story = Story::new(50);
    story.moves(10, 12);
    story.get_on(1, &(0..16).collect::<Vec<_>>());
    story.get_on(2, &(17..50).collect::<Vec<_>>());
    let verdict = story.judge(None);
    assert_eq!((verdict.lost + verdict.with_socket, verdict.away), (1, 0), "{}", verdict.describe());
}

#[test]
fn the_silence_of_a_move_is_the_longest_that_reaches_into_it() {
    let mut story = Story::new(50);
    story.moves(10, 12);
    story.get_on(1, &(0..14).collect::<Vec<_>>());
    story.get_on(2, &(14..20).chain(23..35).collect::<Vec<_>>());
    story.entries.sort_by_key(|entry| entry.at);
    let moves = story.judge(None).moves;
    // Events 20 to 22 are missing in it; those from 35 on are missing after it.
    assert_eq!((moves.median_ms, moves.p99_ms, moves.worst_ms), (Some(400), Some(400), Some(400)));
    // Nothing came any more in the last seconds, so this is no more than was to be expected.
    assert!(moves.are_smooth() && !Moves { calm_p99_ms: Some(199), ..moves }.are_smooth());
}

#[test]
fn a_connect_that_is_refused_is_counted_and_is_no_socket() {
    let mut story = Story::new(5);
    story.get(&[0, 1, 2, 3, 4]);
    story.see_on(2, 4, Seen::Refused(503));
    let verdict = story.judge(None);
    assert_eq!((verdict.refused, verdict.closes.len(), verdict.is_clean()), (1, 0, true), "{}", verdict.describe());
}

#[test]
fn what_is_anothers_or_nobodys_is_misdelivered() {
    let mut story = Story::new(1);
    story.published[0].subject.agent = "a2".into();
    story.see(2, Seen::Event { seq: 100, number: 0, subject: "wa.acme.a2.chats".into() });
    story.see(2, Seen::Event { seq: 7, number: 9, subject: "wa.acme.a1.chats".into() });
    assert_eq!(story.judge(None).misdelivered, 2);
}

#[test]
fn recovery_ends_with_the_last_late_event() {
    let mut story = Story::new(3);
    story.get(&[0, 1]);
    story.see(40, Seen::Event { seq: 102, number: 2, subject: "wa.acme.a1.chats".into() });
    let verdict = story.judge(Some((2, 30)));
    assert_eq!((verdict.recovery_ms, verdict.lost), (1050, 0));
    assert!(verdict.worst_silence_ms >= 3800, "{}", verdict.worst_silence_ms);
}

#[test]
fn lateness_before_and_during_a_fault_is_kept_apart_and_what_is_late_is_counted() {
    let mut story = Story::new(50);
    story.get(&(0..40).collect::<Vec<_>>());
    // Two of the fault's events are half a second late, and one is late.
    for (step, number) in [(46, 40), (47, 41), (150, 42)] {
        story.see(step, Seen::Event { seq: number + 100, number, subject: "wa.acme.a1.chats".into() });
    }
    let others = story.judge(Some((41, 45))).others;
    assert_eq!((others.before_ms, others.during_ms, others.in_time_ms, others.late), (Some(50), Some(10_750), Some(550), 1));
    assert!(!others.is_the_same());
}

#[test]
fn sessions_of_the_pod_that_a_fault_befell_are_no_others() {
    let mut story = Story::new(50);
    story.get(&(0..50).collect::<Vec<_>>());
    let start = story.start;
    let who = Who::User { company: "acme".into(), agent: "a1".into(), user: "u".into(), chat: None };
    let ledgers = vec![Ledger { who, entries: story.entries }];
    let evidence = Evidence { ledgers, published: story.published, started: start, ended: start + STEP * 60 };
    let fault = FaultTime { began: start + STEP * 30, ended: start + STEP * 40, stalls: true, pod: None };
    // The story's socket is on pod-a.
    assert_eq!(Verdict::of(&evidence, Some(fault.at(0))).others, Lateness::default());
    assert!(Verdict::of(&evidence, Some(fault.at(1))).others.is_the_same());
}

#[test]
fn what_is_brought_after_to_a_socket_that_came_later_is_not_late() {
    let mut story = Story::new(50);
    story.get(&(0..40).collect::<Vec<_>>());
    story.see(41, Seen::Closed(Some(1001)));
    story.see(43, Seen::Ready("pod-b".into()));
    story.see(60, Seen::Event { seq: 141, number: 41, subject: "wa.acme.a1.chats".into() });
    story.get(&(44..50).collect::<Vec<_>>());
    let verdict = story.judge(Some((41, 44)));
    assert_eq!((verdict.others.late, verdict.misdelivered), (0, 0), "{}", verdict.describe());
}

#[test]
fn a_session_that_comes_late_is_owed_nothing_from_before_and_was_not_silent() {
    let mut story = Story::new(50);
    story.entries.clear();
    story.see(25, Seen::Ready("pod-a".into()));
    story.get(&(25..50).collect::<Vec<_>>());
    let verdict = story.judge(None);
    assert_eq!((verdict.lost, verdict.away), (0, 0), "{}", verdict.describe());
    assert!(verdict.worst_silence_ms <= 1000 && verdict.rate > 6.0, "{}", verdict.describe());
}

#[test]
fn interleaved_sources_fall_no_deeper_than_they_are_many() {
    assert_eq!(longest_fall(&[1, 2, 3]), 1);
    assert_eq!(longest_fall(&[10, 1, 11, 2, 12, 3]), 2);
    assert_eq!(longest_fall(&[3, 2, 1]), 3);
}
