//! Up to where every session of this pod has everything that concerned it, or was told of a gap: what frames carry as `safe`.
//!
//! That is the ack floor of the shared consumer (an event below it was taken by every live target, or its sessions are told), but
//! only for a pod that was a member of the fleet all the time until the floor was read: events are settled without a pod that is
//! taken for dead. Whether it was shows in its next announcement, so a floor counts only once one that was sent after it was read
//! has come back.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::ports::SettledUpTo;

/// Floors that wait for an announcement; there are a few between two of them.
const MAX_READ: usize = 16;

/// The floor that counts, and those that may.
#[derive(Debug, Default)]
pub(super) struct Floor {
    confirmed: Option<SettledUpTo>,
    read: VecDeque<(Instant, SettledUpTo)>,
    /// This pod was taken for dead, and its sessions neither have what they missed nor were told.
    is_broken: bool,
}

impl Floor {
    /// A floor was read.
    pub(super) fn read(&mut self, settled: SettledUpTo) {
        if self.is_broken {
            return;
        }
        if self.read.len() >= MAX_READ {
            // The latest is the best, once it counts; the earliest counts first.
            self.read.pop_back();
        }
        self.read.push_back((Instant::now(), settled));
    }

    /// An announcement that was sent at `asked` shows that this pod was a member all the time. Returns the floor that counts if it
    /// has moved.
    pub(super) fn confirm(&mut self, asked: Instant) -> Option<SettledUpTo> {
        let mut latest = None;
        while self.read.front().is_some_and(|(at, _)| *at < asked) {
            latest = self.read.pop_front().map(|(_, settled)| settled);
        }
        let settled = latest?;
        let is_behind = |known: SettledUpTo| known.stream == settled.stream && known.seq >= settled.seq;
        if self.confirmed.is_some_and(is_behind) {
            return None;
        }
        self.confirmed = Some(settled);
        self.confirmed
    }

    /// This pod was no member at some time before now: no floor that was read counts.
    pub(super) fn begin_anew(&mut self) {
        self.read.clear();
    }

    /// The same, and until [`Floor::go_on`] none that is read: others may have routed past this pod.
    pub(super) fn break_off(&mut self) {
        self.begin_anew();
        self.is_broken = true;
    }

    /// Every session is told what it missed, or has it read again, before anything that comes from now on.
    pub(super) fn go_on(&mut self) {
        self.is_broken = false;
    }

    /// The floor that counts.
    pub(super) fn confirmed(&self) -> Option<SettledUpTo> {
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use daisi_ws_domain::event::StreamId;
    use tokio::time::advance;

    use super::*;

    fn settled(stream: i128, seq: u64) -> SettledUpTo {
        SettledUpTo { stream: StreamId(stream), seq, at: Duration::ZERO }
    }

    fn seq(floor: &Floor) -> Option<u64> {
        floor.confirmed().map(|settled| settled.seq)
    }

    #[tokio::test(start_paused = true)]
    async fn a_floor_counts_once_an_announcement_that_was_sent_after_it_was_read_has_come_back() {
        let mut floor = Floor::default();
        floor.read(settled(1, 10));
        let asked = Instant::now();
        floor.confirm(asked);
        assert_eq!(seq(&floor), None, "it was asked for in the same moment");
        advance(Duration::from_millis(1)).await;
        let asked = Instant::now();
        advance(Duration::from_millis(1)).await;
        floor.read(settled(1, 20));
        floor.confirm(asked);
        assert_eq!(seq(&floor), Some(10));
        advance(Duration::from_millis(1)).await;
        floor.confirm(Instant::now());
        assert_eq!(seq(&floor), Some(20));
    }

    #[tokio::test(start_paused = true)]
    async fn no_floor_counts_that_was_read_before_it_was_found_out_that_the_pod_was_taken_for_dead() {
        let mut floor = Floor::default();
        floor.read(settled(1, 10));
        advance(Duration::from_millis(1)).await;
        floor.confirm(Instant::now());
        floor.read(settled(1, 20));
        floor.break_off();
        floor.read(settled(1, 30));
        advance(Duration::from_millis(1)).await;
        floor.confirm(Instant::now());
        assert_eq!(seq(&floor), Some(10), "nobody was told yet");
        floor.go_on();
        floor.read(settled(1, 40));
        advance(Duration::from_millis(1)).await;
        floor.confirm(Instant::now());
        assert_eq!(seq(&floor), Some(40));
    }

    #[tokio::test(start_paused = true)]
    async fn the_floor_of_another_stream_counts_though_it_is_lower_and_however_many_are_read_the_first_counts_first() {
        let mut floor = Floor::default();
        for n in 0..100 {
            floor.read(settled(1, 50 + n));
        }
        advance(Duration::from_millis(1)).await;
        floor.confirm(Instant::now());
        assert!(seq(&floor) >= Some(50) && floor.read.is_empty());
        floor.read(settled(2, 3));
        advance(Duration::from_millis(1)).await;
        assert_eq!(floor.confirm(Instant::now()), Some(settled(2, 3)));
    }
}
