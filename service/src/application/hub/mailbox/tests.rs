mod mending;

use std::sync::Arc;

use daisi_ws_domain::gap::{Gap, GapCause};

use super::*;
use crate::application::hub::{
    memory::Memory,
    prepared_message::{EVENT_OVERHEAD, PreparedMessage},
};

const LIMITS: MailboxLimits = MailboxLimits {
    messages: 3,
    bytes: 100,
    burst_bytes: 300 + 20 * EVENT_OVERHEAD,
    held_bytes: 1 << 20,
    policy: DropPolicy::DropOldest,
    overflow_timeout: Duration::from_secs(30),
    repair: 0,
};

fn mailbox(policy: DropPolicy) -> Mailbox {
    Mailbox::new(MailboxLimits { policy, ..LIMITS })
}

fn dropped(push: Push) -> usize {
    match push {
        Push::Taken { dropped } => dropped,
        other => panic!("{other:?}"),
    }
}

fn event(seq: u64) -> Item {
    Item::Event(Arc::new(PreparedMessage::of_text(seq, "0123456789")))
}

fn seqs(items: &[Item]) -> Vec<u64> {
    items.iter().filter_map(|i| if let Item::Event(event) = i { Some(event.seq) } else { None }).collect()
}

#[test]
fn a_burst_that_was_not_written_yet_is_no_reason_to_drop() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    for seq in 1..=10 {
        assert_eq!(mailbox.push(event(seq)), Push::Taken { dropped: 0 });
    }
    assert_eq!(seqs(&mailbox.take(usize::MAX).items).len(), 10);
}

#[test]
fn a_stalled_socket_keeps_the_newest_and_gets_a_gap_in_its_place() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    mailbox.set_stalled(true);
    for seq in 41..=48 {
        mailbox.push(event(seq));
    }
    let items = mailbox.take(usize::MAX).items;
    let lost = Gap { dropped: Some(5), first_seq: Some(41), last_seq: Some(45), cause: GapCause::SlowClient };
    assert!(matches!(&items[0], Item::Gap(gap) if **gap == lost));
    assert_eq!(seqs(&items), [46, 47, 48]);
}

#[test]
fn the_newest_in_the_stream_stays_also_where_it_came_before_older_ones() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    mailbox.set_stalled(true);
    for seq in [48, 49, 50, 41, 42, 43, 44] {
        mailbox.push(event(seq));
    }
    let items = mailbox.take(usize::MAX).items;
    let lost = Gap { dropped: Some(4), first_seq: Some(41), last_seq: Some(44), cause: GapCause::SlowClient };
    assert!(matches!(&items[0], Item::Gap(gap) if **gap == lost));
    assert_eq!(seqs(&items), [48, 49, 50]);
}

#[test]
fn a_burst_is_bounded_by_itself_and_by_what_each_event_takes_beside_its_bytes() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    let small: usize = (1..=25).map(|seq| dropped(mailbox.push(event(seq)))).sum();
    // Ten bytes each, and 256 beside.
    assert_eq!((small, mailbox.len()), (5, 20));
    let _ = mailbox.take(usize::MAX);
    let large = |seq| Item::Event(Arc::new(PreparedMessage::of_text(seq, &"x".repeat(1000))));
    let lost: usize = (26..=35).map(|seq| dropped(mailbox.push(large(seq)))).sum();
    assert_eq!((lost, seqs(&mailbox.take(usize::MAX).items)), (6, vec![32, 33, 34, 35]));
}

#[test]
fn a_socket_that_stalls_with_a_burst_waiting_loses_what_is_past_the_bounds_for_that() {
    for (bytes, text, stay) in [(100, "0123456789", 3), (25, "0123456789", 2)] {
        let mailbox = Mailbox::new(MailboxLimits { bytes, ..LIMITS });
        let lost: usize =
            (1..=15).map(|seq| dropped(mailbox.push(Item::Event(Arc::new(PreparedMessage::of_text(seq, text)))))).sum();
        assert_eq!(lost, 0);
        assert_eq!(mailbox.set_stalled(true), 15 - stay);
        let items = mailbox.take(usize::MAX).items;
        let Item::Gap(gap) = &items[0] else { panic!("no gap comes first") };
        assert_eq!((gap.dropped, gap.first_seq), (Some(15 - stay as u64), Some(1)));
        assert_eq!(seqs(&items).len(), stay);
    }
}

#[test]
fn while_the_pod_holds_too_much_for_all_its_sockets_none_may_have_a_burst() {
    let held = Arc::<Memory>::default();
    let mailbox = Mailbox::new(MailboxLimits { held_bytes: 4096, ..LIMITS });
    let event = |seq| Item::Event(Arc::new(PreparedMessage::of_held_text(seq, "0123456789", &held)));
    let other = PreparedMessage::of_held_text(1, &"x".repeat(8192), &held);
    let lost: usize = (2..=13).map(|seq| dropped(mailbox.push(event(seq)))).sum();
    assert_eq!((lost, mailbox.len()), (2, 10));
    drop(other);
    let lost: usize = (14..=17).map(|seq| dropped(mailbox.push(event(seq)))).sum();
    assert_eq!((lost, mailbox.len()), (0, 14));
}

#[test]
fn gaps_are_bounded_as_well() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    for seq in 1..=1000 {
        mailbox.push(Item::Gap(Box::new(Gap::of(seq, GapCause::GivenUp))));
    }
    assert!(mailbox.len() < 20, "{}", mailbox.len());
    let gaps = mailbox.take(usize::MAX).items;
    let told: u64 = gaps.iter().map(|item| item.as_gap().dropped.unwrap()).sum();
    assert_eq!(told, 1000);
}

#[test]
fn a_gap_that_is_dropped_lives_on_in_the_gap_before_it() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    mailbox.set_stalled(true);
    mailbox.push(Item::Gap(Box::new(Gap { dropped: Some(7), first_seq: Some(1), last_seq: Some(7), cause: GapCause::GivenUp })));
    for seq in 8..=11 {
        mailbox.push(event(seq));
    }
    let items = mailbox.take(usize::MAX).items;
    let Item::Gap(gap) = &items[0] else { panic!("no gap comes first") };
    assert_eq!((gap.dropped, gap.first_seq, gap.last_seq), (Some(8), Some(1), Some(8)));
}

#[tokio::test(start_paused = true)]
async fn block_drops_nothing_and_gives_the_socket_up_when_its_overflow_is_full() {
    let mailbox = Mailbox::new(MailboxLimits { policy: DropPolicy::Block, burst_bytes: 100_000, ..LIMITS });
    mailbox.set_stalled(true);
    for seq in 1..=24 {
        assert_eq!(mailbox.push(event(seq)), Push::Taken { dropped: 0 });
    }
    assert_eq!(mailbox.push(event(25)), Push::Overflow);
    assert_eq!(seqs(&mailbox.take(usize::MAX).items), (1..=24).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn block_gives_a_socket_that_takes_bytes_up_only_when_its_burst_is_full() {
    let mailbox = mailbox(DropPolicy::Block);
    for seq in 1..=20 {
        assert_eq!(mailbox.push(event(seq)), Push::Taken { dropped: 0 });
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    assert_eq!(mailbox.push(event(21)), Push::Overflow);
    // One message may be larger than all bounds.
    let _ = mailbox.take(usize::MAX);
    let huge = Item::Event(Arc::new(PreparedMessage::of_text(22, &"x".repeat(1 << 20))));
    assert_eq!(mailbox.push(huge), Push::Taken { dropped: 0 });
}

#[tokio::test(start_paused = true)]
async fn block_gives_the_socket_up_when_its_overflow_does_not_drain_in_time() {
    let mailbox = mailbox(DropPolicy::Block);
    mailbox.set_stalled(true);
    for seq in 1..=4 {
        mailbox.push(event(seq));
    }
    tokio::time::advance(Duration::from_secs(29)).await;
    assert_eq!(mailbox.push(event(5)), Push::Taken { dropped: 0 });
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(mailbox.push(event(6)), Push::Overflow);
}

#[test]
fn a_closed_mailbox_takes_nothing_more() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    mailbox.push(event(1));
    mailbox.close();
    assert_eq!(mailbox.push(event(2)), Push::Closed);
    assert_eq!(seqs(&mailbox.take(usize::MAX).items), [1]);
}

#[test]
fn all_that_waits_can_be_shed_and_the_gap_tells_exactly_what() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    (41..=48).for_each(|seq| assert_eq!(mailbox.push(event(seq)), Push::Taken { dropped: 0 }));
    assert_eq!(mailbox.shed(), Some(8));
    assert_eq!(mailbox.shed(), Some(0));
    mailbox.push(event(49));
    let items = mailbox.take(usize::MAX).items;
    let lost = Gap { dropped: Some(8), first_seq: Some(41), last_seq: Some(48), cause: GapCause::SlowClient };
    assert!(matches!(&items[0], Item::Gap(gap) if **gap == lost));
    assert_eq!(seqs(&items), [49]);
}

#[test]
fn block_sheds_nothing() {
    let mailbox = mailbox(DropPolicy::Block);
    mailbox.push(event(1));
    assert_eq!((mailbox.shed(), mailbox.len()), (None, 1));
}

#[test]
fn the_places_of_a_long_queue_count_until_it_is_empty_and_those_of_a_short_one_do_not() {
    let held = Arc::<Memory>::default();
    let shared = Arc::new(PreparedMessage::of_held_text(1, "x", &held));
    let mailboxes = [(); 10].map(|()| Mailbox::new(MailboxLimits { burst_bytes: 1 << 20, ..LIMITS }));
    let put = |count| {
        for mailbox in &mailboxes {
            for _ in 0..count {
                assert!(matches!(mailbox.push(Item::Event(Arc::clone(&shared))), Push::Taken { dropped: 0 }));
            }
        }
    };
    put(10);
    assert_eq!(held.of(Kind::Mailboxes), 0);
    put(990);
    let places = held.of(Kind::Mailboxes);
    assert!((10 * 999 * Queue::PLACE..10 * 2048 * Queue::PLACE).contains(&places), "{places}");
    // The event itself counts once.
    assert_eq!(held.of(Kind::Events), shared.frame().len() + EVENT_OVERHEAD);
    mailboxes[0].shed();
    mailboxes[1].set_stalled(true);
    mailboxes[2..].iter().for_each(|mailbox| drop(mailbox.take(usize::MAX).items));
    assert_eq!(held.of(Kind::Mailboxes), 0);
}

#[tokio::test(start_paused = true)]
async fn a_socket_is_behind_from_the_first_write_that_did_not_fit_until_nothing_waits() {
    let mailbox = mailbox(DropPolicy::DropOldest);
    assert!(mailbox.standing().behind_since.is_none());
    mailbox.set_behind(Some(10));
    let since = mailbox.standing().behind_since;
    tokio::time::advance(Duration::from_secs(5)).await;
    mailbox.set_behind(Some(20));
    assert_eq!((mailbox.standing().behind_since, mailbox.standing().writing), (since, 20));
    mailbox.set_behind(None);
    assert!(mailbox.standing().behind_since.is_none());
}
