//! What sockets saw beside what was published.
//!
//! An event is owed to a socket when it was stored after the socket's `ready` was read (for messages: after their chat was
//! selected), and before the socket ended. One that is owed and did not come is *announced*, when a gap on that socket covers it,
//! or *gone with its socket*, when that ended before every target had it. In all other cases it is lost.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    EVERYTHING_FLOWS_AGAIN, NO_GAP_WITHOUT_A_REASON, NOTHING_IS_DOUBLED, NOTHING_IS_LOST, NOTHING_IS_MISDELIVERED, ORDER_IS_KEPT,
};
use crate::{
    history::{Gap, History, Moment, Owed, Published, Socket, TroubleKind},
    plan::{Person, Topic},
};

/// An event that every target has taken is in a mailbox; so long after it has been read, if the client reads.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// An event that is stored when nothing is broken comes within this time.
const FLOWS_WITHIN: Duration = Duration::from_secs(3);
/// What befell a pod so long ago may still keep an event from a socket of it.
const AFTERMATH: Duration = Duration::from_secs(30);
/// Who can reach a peer, or the store, has told it of a gap within this time: twice a look, an announcement, and two calls.
const SAID_WITHIN: Duration = Duration::from_secs(5);
/// What keeps a pod from telling another of a gap.
const APART: [TroubleKind; 4] = [TroubleKind::Frozen, TroubleKind::Links, TroubleKind::Store, TroubleKind::Down];
/// Faults by which an event may go past a pod before its sockets are told.
const PASSED_OVER: [TroubleKind; 3] = [TroubleKind::Frozen, TroubleKind::Links, TroubleKind::Store];

/// By what a history is judged.
#[derive(Debug, Clone)]
pub struct Judgement<'a> {
    /// Whose sockets they are.
    pub people: &'a [Person],
    /// When it is judged: what was stored just before that may still be on its way.
    pub now: Duration,
    /// From when until when nothing was broken and events were stored, for a while.
    pub sound: (Duration, Duration),
    /// How old an event can be that a gap of unknown range is about.
    pub memory: Duration,
    /// Nothing was ever broken.
    pub calm: bool,
}

/// What a socket missed, and how it was told.
struct Account<'a> {
    history: &'a History,
    judgement: &'a Judgement<'a>,
    socket: &'a Socket,
    number: usize,
    wrong: Vec<(&'static str, String)>,
}

/// All that is wrong with a history, and how many events were owed, announced and gone with their sockets.
#[must_use]
pub fn account(history: &History, judgement: &Judgement<'_>) -> (Vec<(&'static str, String)>, BTreeMap<&'static str, u64>) {
    let mut by_topic: BTreeMap<Topic, Vec<(u64, &Published)>> = BTreeMap::new();
    for (seq, event) in (1..).zip(&history.published) {
        by_topic.entry(event.topic).or_default().push((seq, event));
    }
    let (mut wrong, mut totals) = (Vec::new(), BTreeMap::new());
    for (number, socket) in history.sockets.iter().enumerate() {
        let mut account = Account { history, judgement, socket, number, wrong: Vec::new() };
        let got = account.received();
        account.order();
        account.gaps();
        let who = judgement.people[socket.person].who;
        let topics = by_topic.iter().filter(|(topic, _)| who.wants(**topic, |chat| socket.asked.contains(&chat)));
        for (seq, event) in topics.flat_map(|(_, events)| events) {
            if let Some(owed) = socket.owed(event.topic, event.stored) {
                *totals.entry("owed").or_default() += 1;
                let became = account.became(*seq, event, &owed, got.get(seq).copied());
                *totals.entry(became).or_default() += 1;
            }
        }
        wrong.append(&mut account.wrong);
    }
    (wrong, totals)
}

impl Account<'_> {
    fn wrong(&mut self, invariant: &'static str, what: &str) {
        let (number, owner, person) = (self.number, &self.socket.owner, self.socket.person);
        self.wrong.push((invariant, format!("socket {number} ({owner}) of person {person}: {what}")));
    }

    /// What came, and when; each must be its own, and come once.
    fn received(&mut self) -> HashMap<u64, Moment> {
        let socket = self.socket;
        let mut got = HashMap::new();
        let who = self.judgement.people[socket.person].who;
        for (at, seen) in &socket.events {
            if got.insert(seen.seq, *at).is_some() {
                self.wrong(NOTHING_IS_DOUBLED, &format!("event {} came twice", seen.seq));
            }
            let event = self.history.event(seen.seq).filter(|event| {
                let is_that = seen.number == seen.seq && event.topic.code() == seen.topic;
                is_that && who.wants(event.topic, |chat| socket.asked.contains(&chat))
            });
            if event.is_none() {
                self.wrong(NOTHING_IS_MISDELIVERED, &format!("{seen:?} is not its own"));
            }
        }
        for text in &socket.nonsense {
            self.wrong(NOTHING_IS_MISDELIVERED, &format!("{text} is no frame for anybody"));
        }
        got
    }

    /// Of what was delivered once, each pod's part of a subject comes in order: so many pods, so many ascending rows. What was read
    /// again is no pod's part: it comes when it is known to be missing, behind whatever came before that.
    fn order(&mut self) {
        let mut by_topic: BTreeMap<Topic, Vec<u64>> = BTreeMap::new();
        for (_, seen) in self.socket.events.iter().filter(|(_, seen)| !seen.replayed) {
            if let Some(event) = self.history.event(seen.seq).filter(|event| !event.redelivered) {
                by_topic.entry(event.topic).or_default().push(seen.seq);
            }
        }
        let pods = self.history.pods.len();
        for (topic, seqs) in by_topic {
            if longest_fall(&seqs) > pods {
                self.wrong(ORDER_IS_KEPT, &format!("{topic:?} of {pods} pods came as {seqs:?}"));
            }
        }
    }

    fn gaps(&mut self) {
        let socket = self.socket;
        let groundless = socket.gaps.iter().find(|(_, gap)| self.judgement.calm && gap.reason != "slow_client");
        if let Some((at, gap)) = groundless {
            self.wrong(NO_GAP_WITHOUT_A_REASON, &format!("{gap:?} came at {:?}, and nothing was broken", at.at));
        }
    }

    /// What became of an event that is owed.
    fn became(&mut self, seq: u64, event: &Published, owed: &Owed, got: Option<Moment>) -> &'static str {
        let (from, until) = self.judgement.sound;
        let stored = event.stored.at;
        let must_flow = owed.since.at < from && stored >= from && stored < until && owed.until.is_none();
        if let Some(got) = got {
            if must_flow && got.at > stored + FLOWS_WITHIN {
                let what = format!("event {seq}, stored at {stored:?}, came at {:?}, and nothing was broken", got.at);
                self.wrong(EVERYTHING_FLOWS_AGAIN, &what);
            }
            return "received";
        }
        if must_flow {
            self.wrong(EVERYTHING_FLOWS_AGAIN, &format!("event {seq}, stored at {stored:?}, never came, and nothing was broken"));
            return "lost";
        }
        if self.socket.gaps.iter().any(|(at, gap)| self.covers(*at, gap, seq, event)) {
            return "announced";
        }
        if owed.until.is_none() && self.judgement.now < stored + FLOWS_WITHIN {
            return "under way";
        }
        if owed.until.is_some_and(|until| self.went_along(event, until)) {
            return "gone with its socket";
        }
        if self.was_never_said(event) {
            return "never said by a pod that ended";
        }
        let acked = event.acked.map(|acked| acked.at);
        self.wrong(NOTHING_IS_LOST, &format!("event {seq} ({:?}, stored {stored:?}, acked {acked:?}) never came", event.topic));
        "lost"
    }

    fn covers(&self, at: Moment, gap: &Gap, seq: u64, event: &Published) -> bool {
        match gap.range {
            Some((first, last)) => (first..=last).contains(&seq),
            None => event.stored < at && at.at <= event.stored.at + self.judgement.memory,
        }
    }

    /// Did the pod that settled it end before it could tell this one of the gap? A known limit: nobody else knows of it.
    fn was_never_said(&self, event: &Published) -> bool {
        let settled = event.acked.map(|at| (at, event.acked_by)).or(event.terminated.map(|at| (at, event.terminated_by)));
        let Some((moment, by)) = settled else { return false };
        let life = &self.history.pods[by];
        let Some(ended) = life.until else { return false };
        let had_no_time = ended < moment.at + SAID_WITHIN;
        let apart = |slot| self.history.was_broken(&APART, slot, ended.saturating_sub(SAID_WITHIN).max(moment.at), ended);
        ended >= moment.at && (had_no_time || apart(life.slot) || apart(self.socket.slot))
    }

    /// Did the socket end before its client had to have the event, or to be told?
    fn went_along(&self, event: &Published, ended: Moment) -> bool {
        let Some(acked) = event.acked.filter(|acked| acked.at + READ_WITHIN <= ended.at) else { return true };
        let begun = event.stored.at.saturating_sub(AFTERMATH);
        acked >= ended
            || self.socket.stalled_since(event.stored.at)
            || self.history.was_broken(&PASSED_OVER, self.socket.slot, begun, ended.at)
    }
}

/// The length of the longest subsequence of ever smaller numbers: by Dilworth, the least number of ascending sources that could
/// have been interleaved into this.
fn longest_fall(seqs: &[u64]) -> usize {
    // tails[k] is the greatest last number of a falling subsequence of length k + 1.
    let mut tails: Vec<u64> = Vec::new();
    for seq in seqs {
        let place = tails.partition_point(|tail| tail > seq);
        match tails.get_mut(place) {
            Some(tail) => *tail = *seq,
            None => tails.push(*seq),
        }
    }
    tails.len()
}

#[cfg(test)]
mod tests;
