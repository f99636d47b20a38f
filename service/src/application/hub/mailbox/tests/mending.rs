//! Whatever comes in whatever order, and whenever what is missing is read: everything comes once.

use std::collections::BTreeSet;

use daisi_ws_domain::{
    event::StreamId,
    missing::{Had, Missing},
    seen::SeenEvents,
};
use proptest::prelude::*;

use super::*;
use crate::application::hub::mailbox::{hole::Hole, repair::Reading};

const STREAM: StreamId = StreamId(1);
const REPAIRED: MailboxLimits =
    MailboxLimits { messages: 2, bytes: 60, burst_bytes: 120 + 6 * EVENT_OVERHEAD, repair: 3, ..LIMITS };

#[derive(Debug, Clone)]
enum Step {
    /// So many events are stored.
    Store(u64),
    /// One of those that are under way comes: from whichever pod has it, parked or not.
    Bring(prop::sample::Index),
    /// One that came before comes again.
    Again(prop::sample::Index),
    /// Those under way go past the pod, which is told of that later.
    PassOver,
    /// The socket takes what waits, up to so many bytes.
    Take(usize),
    /// What is missing is read, so many events at most.
    Read(usize),
    Stall(bool),
    Shed,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..4_u64).prop_map(Step::Store),
        8 => any::<prop::sample::Index>().prop_map(Step::Bring),
        2 => any::<prop::sample::Index>().prop_map(Step::Again),
        1 => Just(Step::PassOver),
        3 => (1..40_usize).prop_map(Step::Take),
        3 => (1..4_usize).prop_map(Step::Read),
        1 => any::<bool>().prop_map(Step::Stall),
        1 => Just(Step::Shed),
    ]
}

/// A session with its mailbox, and the stream behind it: every event concerns it.
struct World {
    mailbox: Mailbox,
    /// What its pod took.
    seen: SeenEvents,
    stored: u64,
    under_way: BTreeSet<u64>,
    order: Option<MendOrder>,
    got: Vec<u64>,
}

impl World {
    fn bring(&mut self, seq: u64) {
        self.under_way.remove(&seq);
        self.seen.insert(STREAM, seq, Duration::ZERO);
        assert_eq!(self.mailbox.push(event(seq)), Push::Taken { dropped: 0 });
    }

    fn pick(&self, index: &prop::sample::Index) -> Option<u64> {
        let under_way: Vec<u64> = self.under_way.iter().copied().collect();
        (!under_way.is_empty()).then(|| *index.get(&under_way))
    }

    /// As a pod does that was taken for dead: it knows from where on, and what it took.
    fn pass_over(&mut self) {
        let Some(first) = self.under_way.pop_first() else { return };
        self.under_way.clear();
        let taken = self.seen.taken_between(STREAM, first - 1, u64::MAX);
        let Some(taken) = taken else {
            // A pod that took nothing ever.
            (first..=self.stored).for_each(|seq| self.bring(seq));
            return;
        };
        let missing = Missing { after: first - 1, upto: None, had: Had::AsTaken(Arc::new(taken)) };
        let hole = Hole { gap: Gap::unknown(GapCause::PodResumed), missing };
        assert_eq!(self.mailbox.push(Item::Hole(Box::new(hole))), Push::Taken { dropped: 0 });
    }

    fn take(&mut self, bytes: usize) -> bool {
        let Taken { items, mend } = self.mailbox.take(bytes);
        let is_something = !items.is_empty() || mend.is_some();
        self.order = mend.map(|order| *order).or(self.order.take());
        for item in items {
            match item {
                Item::Event(event) => self.got.push(event.seq),
                other => panic!("{other:?} is told, and the stream has it"),
            }
        }
        is_something
    }

    fn read(&mut self, most: usize) -> bool {
        let Some(MendOrder { missing, .. }) = self.order.take() else { return false };
        let upto = missing.upto.unwrap_or(self.stored);
        let mut seqs: Vec<u64> = (missing.after + 1..=upto).filter(|seq| missing.has(*seq)).collect();
        let through = seqs.get(most).map_or(upto, |next| next - 1);
        seqs.truncate(most);
        let mut events: Vec<_> = seqs.iter().map(|seq| Arc::new(PreparedMessage::of_text(*seq, "0123456789"))).collect();
        let reading = Reading { stream: STREAM, events: events.len() as u64, through, upto, gone: None };
        self.mailbox.retain_missing(&mut events);
        assert_eq!(self.mailbox.mended(Some(reading), &events), None);
        assert!(events.is_sorted_by_key(|event| event.seq));
        self.got.extend(events.iter().map(|event| event.seq));
        true
    }
}

#[test]
fn what_a_client_had_of_one_stream_says_nothing_of_another() {
    let mailbox = Mailbox::new(REPAIRED);
    mailbox.begin_after(StreamId(7), 100);
    assert!(mailbox.is_in(StreamId(7)) && !mailbox.is_in(STREAM));
    mailbox.push(event(3));
    assert_eq!(seqs(&mailbox.take(usize::MAX).items), [3], "it is of a stream that was made anew");
    mailbox.begin_after(STREAM, 4);
    mailbox.push(event(4));
    mailbox.push(event(5));
    assert_eq!(seqs(&mailbox.take(usize::MAX).items), [5]);
}

#[test]
fn g9_a_mailbox_that_nobody_takes_from_any_more_holds_nothing_not_even_behind_a_hole() {
    let (mailbox, memory) = (Mailbox::new(REPAIRED), Arc::<Memory>::default());
    let missing = Missing { after: 0, upto: Some(9), had: Had::Nothing };
    mailbox.push(Item::Hole(Box::new(Hole { gap: Gap::unknown(GapCause::GivenUp), missing })));
    assert!(mailbox.take(usize::MAX).mend.is_some());
    mailbox.push(Item::Event(Arc::new(PreparedMessage::of_held_text(10, "0123456789", &memory))));
    assert!(memory.used() > 0);
    mailbox.empty();
    assert_eq!((memory.used(), mailbox.is_behind(), mailbox.push(event(11))), (0, false, Push::Closed));
}

#[test]
fn what_was_read_again_comes_no_more_though_a_crowd_of_gaps_is_mended_after_it() {
    let mailbox = Mailbox::new(REPAIRED);
    let mend = |after: u64, upto: u64| {
        let missing = Missing { after, upto: Some(upto), had: Had::Nothing };
        let gap = Gap { dropped: None, first_seq: Some(after + 1), last_seq: Some(upto), cause: GapCause::GivenUp };
        mailbox.push(Item::Hole(Box::new(Hole { gap, missing })));
        while mailbox.take(usize::MAX).mend.is_none() {}
        let reading = Reading { stream: STREAM, events: upto - after, through: upto, upto, gone: None };
        let events: Vec<_> = (after + 1..=upto).map(|seq| Arc::new(PreparedMessage::of_text(seq, "x"))).collect();
        assert_eq!(mailbox.mended(Some(reading), &events), None);
    };
    mend(1000, 2000);
    // Given up for the session by pods that took them before, one by one.
    (10..60).for_each(|seq| mend(2 * seq, 2 * seq + 1));
    mailbox.push(event(1500));
    assert!(mailbox.is_empty(), "it was parked elsewhere, and had been read again");
    mailbox.push(event(2001));
    assert_eq!(seqs(&mailbox.take(usize::MAX).items), [2001]);
    // However many there are, what is oldest in the stream is forgotten first.
    (100..300).for_each(|seq| mend(2 * seq, 2 * seq + 1));
    mailbox.push(event(1500));
    assert!(mailbox.is_empty());
}

#[test]
fn g1_what_was_read_again_is_known_for_it_however_many_gaps_with_little_in_them_come_later() {
    let mailbox = Mailbox::new(REPAIRED);
    let lacks = |range: std::ops::RangeInclusive<u64>, brought: &[u64]| {
        let missing = Missing { after: range.start() - 1, upto: Some(*range.end()), had: Had::Nothing };
        mailbox.push(Item::Hole(Box::new(Hole { gap: Gap::unknown(GapCause::GivenUp), missing })));
        let Taken { mend, .. } = mailbox.take(usize::MAX);
        assert!(mend.is_some());
        let mut events: Vec<_> = brought.iter().map(|seq| Arc::new(PreparedMessage::of_text(*seq, "x"))).collect();
        let reading =
            Reading { stream: STREAM, events: events.len() as u64, through: *range.end(), upto: *range.end(), gone: None };
        mailbox.retain_missing(&mut events);
        assert_eq!(mailbox.mended(Some(reading), &events), None);
        events.len()
    };
    let many: Vec<u64> = (1000..1200).collect();
    assert_eq!((lacks(1..=9, &[5, 7]), lacks(1000..=1199, &many)), (2, 200));
    for seq in (200..400).step_by(2) {
        assert_eq!(lacks(seq..=seq, &[seq]), 1);
    }
    assert_eq!(lacks(1..=1199, &many), 0);
    assert_eq!(lacks(1..=10, &[5, 6]), 1, "5 was written before");
    // They were parked, and come now.
    for seq in [5, 6, 7, 200, 398, 1000, 1199] {
        mailbox.push(event(seq));
    }
    assert_eq!(seqs(&mailbox.take(usize::MAX).items), [0; 0]);
    mailbox.push(event(999));
    assert_eq!(seqs(&mailbox.take(usize::MAX).items), [999]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn g1_g10_everything_comes_once_whatever_is_dropped_passed_over_or_comes_again(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World {
            mailbox: Mailbox::new(REPAIRED),
            seen: SeenEvents::default(),
            stored: 0,
            under_way: BTreeSet::new(),
            order: None,
            got: Vec::new(),
        };
        for step in steps {
            match step {
                Step::Store(count) => {
                    world.under_way.extend(world.stored + 1..=world.stored + count);
                    world.stored += count;
                }
                Step::Bring(index) => {
                    if let Some(seq) = world.pick(&index) {
                        world.bring(seq);
                    }
                }
                // A pod takes no event twice; what a mailbox sees twice is what it had by another way.
                Step::Again(index) if !world.got.is_empty() => {
                    let seq = *index.get(&world.got);
                    if world.under_way.contains(&seq) {
                        world.bring(seq);
                    }
                }
                Step::Again(_) => {}
                Step::PassOver => world.pass_over(),
                Step::Take(bytes) => {
                    world.take(bytes);
                }
                Step::Read(most) => {
                    world.read(most);
                }
                Step::Stall(stalled) => {
                    world.mailbox.set_stalled(stalled);
                }
                Step::Shed => {
                    world.mailbox.shed();
                }
            }
            prop_assert!(world.mailbox.len() <= 20, "{} items wait", world.mailbox.len());
        }
        while let Some(seq) = world.under_way.first().copied() {
            world.bring(seq);
        }
        world.mailbox.set_stalled(false);
        for _ in 0..1000 {
            let read = world.read(3);
            if !world.take(usize::MAX) && !read {
                break;
            }
        }
        let mut got = world.got.clone();
        got.sort_unstable();
        prop_assert_eq!(got, (1..=world.stored).collect::<Vec<_>>(), "in the order {:?}", world.got);
        prop_assert!(!world.mailbox.is_behind());
    }
}
