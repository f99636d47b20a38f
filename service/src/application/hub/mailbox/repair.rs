//! What a mailbox did not take, and how far that has been read again from the stream.
//!
//! A mailbox that has no room takes nothing newer until it is mended: what it passes over stays in the stream and costs a few
//! bytes here. Once its socket has written all that waits, the passed-over events are read, a part at a time. For the last part
//! the mailbox takes events again before the stream's end is asked for, and holds them back until that part is written: so
//! nothing is left out, and nothing newer comes first.

use std::collections::VecDeque;

use daisi_ws_domain::{
    event::StreamId,
    gap::{Gap, GapCause},
    missing::{Had, Missing},
};

use super::{hole::Hole, item::Item};

/// Events passed over that are remembered one by one: older than what was taken, as others were brought late.
const MAX_HOLES: usize = 4096;
/// Other gaps that are remembered while a mailbox takes nothing; past that they are told and not mended.
const MAX_GAPS: usize = 8;
/// Stretches that were read again, of which something may still come once more: so many may be given up for a pod that is away.
const MAX_COVERS: usize = 64;
/// So many events of one reading are remembered one by one: a socket may have many gaps in a row with hardly anything in them, as
/// each peer of a pod that was cut off tells its own.
const FEW: usize = 64;

/// What a mailbox passes over.
#[derive(Debug)]
pub(super) struct Skipped {
    /// Nothing above it was taken.
    highest: u64,
    /// What was not, of what is no higher; not in order.
    holes: Vec<u64>,
    /// What is to be told if nothing of it can be read again. Its count is exact.
    gap: Gap,
    /// Gaps of other causes meanwhile.
    gaps: Vec<Hole>,
    /// What can't be mended.
    lost: Option<Gap>,
    /// The stream has nothing up to here any more.
    gone: Option<u64>,
}

impl Skipped {
    /// Begins behind everything up to `highest`.
    pub(super) fn new(highest: u64) -> Self {
        let gap = Gap { dropped: Some(0), first_seq: None, last_seq: None, cause: GapCause::SlowClient };
        Self { highest, holes: Vec::new(), gap, gaps: Vec::new(), lost: None, gone: None }
    }

    /// Passes over an item.
    pub(super) fn pass_over(&mut self, item: &Item) {
        match item {
            Item::Event(_) => match item.seq() {
                Some(seq) => self.pass_over_event(seq),
                None => self.lose(Gap::of(0, GapCause::SlowClient)),
            },
            Item::Gap(gap) => self.lose(**gap),
            Item::Hole(hole) if self.gaps.len() < MAX_GAPS => self.gaps.push((**hole).clone()),
            Item::Hole(hole) => self.lose(hole.gap),
        }
    }

    fn pass_over_event(&mut self, seq: u64) {
        if seq <= self.highest {
            if self.holes.len() >= MAX_HOLES {
                return self.lose(Gap::of(seq, GapCause::SlowClient));
            }
            self.holes.push(seq);
        }
        let gap = Gap::of(seq, GapCause::SlowClient);
        self.gap = if self.gap.last_seq.is_none() { gap } else { self.gap.merge(gap) };
    }

    /// What was passed over before, which is newer.
    pub(super) fn go_on_with(&mut self, before: Self) {
        self.holes.extend(before.holes);
        self.gap = match (self.gap.last_seq, before.gap.last_seq) {
            (None, _) => before.gap,
            (_, None) => self.gap,
            _ => self.gap.merge(before.gap),
        };
        self.gaps.extend(before.gaps);
        before.lost.into_iter().for_each(|lost| self.lose(lost));
        self.gone = self.gone.max(before.gone);
        self.bound();
    }

    /// What is past the bounds is lost.
    fn bound(&mut self) {
        while self.holes.len() > MAX_HOLES
            && let Some(seq) = self.holes.pop()
        {
            self.gap.dropped = self.gap.dropped.map(|dropped| dropped.saturating_sub(1));
            self.lose(Gap::of(seq, GapCause::SlowClient));
        }
        while self.gaps.len() > MAX_GAPS
            && let Some(hole) = self.gaps.pop()
        {
            self.lose(hole.gap);
        }
    }

    fn lose(&mut self, gap: Gap) {
        self.lost = Some(self.lost.map_or(gap, |lost| lost.merge(gap)));
    }

    /// How many events.
    pub(super) fn count(&self) -> u64 {
        self.gap.dropped.unwrap_or_default()
    }

    /// What has to be read.
    fn missing(&mut self) -> Missing {
        self.holes.sort_unstable();
        let after = self.holes.first().map_or(self.highest, |first| self.highest.min(first - 1));
        let had = Had::AllUpTo { highest: self.highest, except: self.holes.as_slice().into() };
        Missing { after, upto: None, had }
    }

    /// All of `missing` up to there was read again. What was passed over since and is no part of that stays a hole.
    fn read(&mut self, missing: &Missing, read: &Reading) {
        self.holes.retain(|seq| *seq > read.through || !missing.has(*seq));
        self.highest = self.highest.max(read.through);
        self.gap.dropped = Some(self.count().saturating_sub(read.events));
        self.gone = self.gone.max(read.gone);
    }

    /// From now on it is in the way of what waits, and other gaps behind it.
    fn into_fronts(mut self) -> impl Iterator<Item = Front> {
        let missing = self.missing();
        let first = Front { hole: Hole { gap: self.gap, missing }, lost: self.lost, gone: self.gone };
        std::iter::once(first).chain(self.gaps.into_iter().map(Front::new))
    }
}

/// What a socket's task is to have read.
#[derive(Debug, Clone)]
pub struct MendOrder {
    /// What is missing.
    pub missing: Missing,
    /// Why.
    pub cause: GapCause,
}

/// What was read for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Of this stream.
    pub(crate) stream: StreamId,
    /// So many events.
    pub(crate) events: u64,
    /// All that the stream still has of what is missing up to here is among them.
    pub(crate) through: u64,
    /// Where what is missing ends.
    pub(crate) upto: u64,
    /// The stream has nothing up to here any more.
    pub(crate) gone: Option<u64>,
}

/// What is being mended, in the way of all that waits.
#[derive(Debug)]
struct Front {
    hole: Hole,
    /// What can't be mended beside it.
    lost: Option<Gap>,
    gone: Option<u64>,
}

impl Front {
    fn new(hole: Hole) -> Self {
        Self { hole, lost: None, gone: None }
    }

    /// What is left of it that the client has to be told.
    fn remainder(&self) -> Option<Gap> {
        let Gap { dropped, first_seq, last_seq, cause } = self.hole.gap;
        let left = match dropped {
            Some(0) => None,
            // What was not there to be read does not concern this session, unless it was counted for it.
            _ if self.gone.is_none() && cause != GapCause::SlowClient => None,
            // Where nobody counted, and the range is not known either, it is what the stream has let go of.
            None => Some(Gap { dropped, first_seq: first_seq.or(Some(self.hole.missing.after + 1)), last_seq: self.gone, cause }),
            Some(_) => Some(Gap { dropped, first_seq, last_seq: self.gone.or(last_seq), cause }),
        };
        merge(left, self.lost)
    }
}

fn merge(one: Option<Gap>, other: Option<Gap>) -> Option<Gap> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.merge(other)),
        (one, other) => one.or(other),
    }
}

/// Whose order is out.
#[derive(Debug, Clone)]
enum Ordered {
    Front(Missing),
    Skipped(Missing),
}

/// What a mailbox lacks and what it was mended with. Most mailboxes never have one.
#[derive(Debug, Default)]
pub(super) struct Repair {
    fronts: VecDeque<Front>,
    /// Nothing newer is taken while it is there.
    pub(super) skipped: Option<Skipped>,
    ordered: Option<Ordered>,
    /// Stretches that were read again: an event of one that comes once more is a redelivery.
    covers: Vec<Missing>,
    /// The same of readings with few events, in ascending order.
    few: Vec<u64>,
}

impl Repair {
    /// Was this event read again?
    pub(super) fn covers(&self, seq: u64) -> bool {
        self.few.binary_search(&seq).is_ok() || self.covers.iter().any(|cover| cover.has(seq))
    }

    /// Is what waits held back?
    pub(super) fn holds_back(&self) -> bool {
        !self.fronts.is_empty()
    }

    /// Is something missing?
    pub(super) fn is_behind(&self) -> bool {
        self.holds_back() || self.skipped.is_some()
    }

    /// A hole has come to the front of what waits.
    pub(super) fn meet(&mut self, hole: Hole) {
        self.fronts.push_back(Front::new(hole));
    }

    /// What is to be read now, if nothing is being read. `is_written`: all that waited is. With no more than `few` events passed
    /// over, events are taken again from now on, and held back.
    pub(super) fn order(&mut self, is_written: bool, few: u64) -> Option<MendOrder> {
        if self.ordered.is_some() {
            return None;
        }
        if self.fronts.is_empty() && is_written {
            let skipped = self.skipped.take_if(|skipped| skipped.count() <= few);
            self.fronts.extend(skipped.into_iter().flat_map(Skipped::into_fronts));
        }
        let (ordered, cause) = match (self.fronts.front(), &mut self.skipped) {
            (Some(front), _) => (Ordered::Front(front.hole.missing.clone()), front.hole.gap.cause),
            (None, Some(skipped)) if is_written => (Ordered::Skipped(skipped.missing()), skipped.gap.cause),
            (None, _) => return None,
        };
        let (Ordered::Front(missing) | Ordered::Skipped(missing)) = &ordered;
        let order = MendOrder { missing: missing.clone(), cause };
        self.ordered = Some(ordered);
        Some(order)
    }

    /// Takes in what was read for the order and is written, or that nothing can be. Returns what the client has to be told before
    /// what was read.
    pub(super) fn mended(&mut self, reading: Option<Reading>, written: &[u64]) -> Option<Gap> {
        let (ordered, Some(read)) = (self.ordered.take()?, reading) else { return self.give_up() };
        match ordered {
            Ordered::Skipped(missing) => {
                self.skipped.as_mut()?.read(&missing, &read);
                self.cover(missing.up_to(read.through.min(read.upto)), written);
                None
            }
            Ordered::Front(missing) => {
                self.cover(missing.up_to(read.through.min(read.upto)), written);
                let front = self.fronts.front_mut()?;
                front.gone = front.gone.max(read.gone);
                front.hole.gap.dropped = front.hole.gap.dropped.map(|dropped| dropped.saturating_sub(read.events));
                front.hole.missing = missing.up_to(read.upto).past(read.through);
                if read.through < read.upto { None } else { self.fronts.pop_front()?.remainder() }
            }
        }
    }

    /// Nothing can be read of what is first.
    fn give_up(&mut self) -> Option<Gap> {
        if self.fronts.is_empty() {
            self.fronts.extend(self.skipped.take().into_iter().flat_map(Skipped::into_fronts));
        }
        let Front { hole, lost, .. } = self.fronts.pop_front()?;
        merge(Some(hole.gap), lost)
    }

    fn cover(&mut self, cover: Missing, written: &[u64]) {
        if written.len() <= FEW {
            self.few.extend(written);
            self.few.sort_unstable();
            // The oldest are the first that can't come again.
            let past = self.few.len().saturating_sub(MAX_HOLES);
            self.few.drain(..past);
            return;
        }
        if let Some(last) = self.covers.last_mut()
            && last.upto == Some(cover.after)
            && cover.goes_on_from(last)
        {
            last.upto = cover.upto;
            return;
        }
        self.covers.push(cover);
        if self.covers.len() > MAX_COVERS {
            // What is oldest in the stream is settled first, and then comes no more.
            let oldest = self.covers.iter().enumerate().min_by_key(|(_, cover)| cover.upto).map(|(place, _)| place);
            oldest.into_iter().for_each(|place| drop(self.covers.remove(place)));
        }
    }

    /// What was read again was of another stream.
    pub(super) fn forget_covers(&mut self) {
        self.covers.clear();
        self.few.clear();
    }

    /// Is nothing in here that matters?
    pub(super) fn is_idle(&self) -> bool {
        !self.is_behind() && self.ordered.is_none() && self.covers.is_empty() && self.few.is_empty()
    }

    /// The highest sequence that was read again.
    pub(super) fn covered_up_to(&self) -> u64 {
        self.covers.iter().filter_map(|cover| cover.upto).chain(self.few.last().copied()).max().unwrap_or(0)
    }
}
