//! Compares what sessions saw with what was published.
//!
//! An event is owed to a socket when publishing it began after the socket was ready (for messages: after the chat was selected), and the stream
//! had it before the socket ended. One that is owed and did not come is
//!
//! - *announced*, when a gap on that socket covers it;
//! - *gone with its socket*, when the socket ended soon after: what was on its way to a client that is gone. The client knows, by the end;
//! - *lost*, in every other case: silently.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    ledger::{Entry, Kind, Ledger, Published, Seen, Who},
    load::Evidence,
};

/// How long before its socket's end an event may have been on its way.
pub const IN_FLIGHT: Duration = Duration::from_secs(2);
/// An event is late that takes longer than this: far more than an undisturbed fleet needs, on a machine that is busy with the harness too.
pub const LATE: Duration = Duration::from_secs(1);
/// Examples of each kind of mistake that a verdict keeps.
const EXAMPLES: usize = 12;

/// When a fault began and ended.
#[derive(Debug, Clone, Copy)]
pub struct FaultTime {
    /// Its begin.
    pub began: Instant,
    /// Its end: from here on, recovery is measured.
    pub ended: Instant,
    /// Sockets may have been stalled by it, and may end long after what was on its way to them.
    pub stalls: bool,
}

/// What came of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Sessions that took part.
    pub sessions: usize,
    /// Events stored.
    pub published: usize,
    /// Events received, in sum.
    pub deliveries: usize,
    /// Events owed to the least busy user session, a second.
    pub rate: f64,
    /// Owed and silently missing.
    pub lost: usize,
    /// Received twice on one socket.
    pub doubled: usize,
    /// Received again by a session after it had moved to another socket.
    pub repeated: usize,
    /// Received by a session that they do not concern, or never published.
    pub misdelivered: usize,
    /// Missing, and announced by a gap.
    pub announced: usize,
    /// Gap frames.
    pub gaps: usize,
    /// Missing, on their way when their socket ended.
    pub with_socket: usize,
    /// Stored while the session they concern had no socket.
    pub away: usize,
    /// Sockets that ended, by close code; 0 where there was no goodbye.
    pub closes: BTreeMap<u16, usize>,
    /// The longest run of ever smaller sequences of one subject in one socket: as many sources, or a source out of order.
    pub order_depth: usize,
    /// The longest that any session saw nothing while events for it were published, in milliseconds.
    pub worst_silence_ms: u64,
    /// From the end of the fault until nothing was late any more and everybody had a socket, in milliseconds.
    pub recovery_ms: u64,
    /// `error` frames and frames that nobody should get.
    pub strange: usize,
    /// Some of the mistakes, in words.
    pub examples: Vec<String>,
}

/// One socket of a session.
struct Socket<'a> {
    ready: Instant,
    chat: Option<Instant>,
    ended: Option<Instant>,
    entries: &'a [Entry],
}

fn sockets(ledger: &Ledger) -> Vec<Socket<'_>> {
    let starts: Vec<usize> =
        ledger.entries.iter().enumerate().filter(|(_, entry)| matches!(entry.seen, Seen::Ready(_))).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([ledger.entries.len()]);
    let find =
        |entries: &[Entry], wanted: fn(&Seen) -> bool| entries.iter().find(|entry| wanted(&entry.seen)).map(|entry| entry.at);
    let cut = starts.iter().zip(ends).map(|(start, end)| {
        let entries = &ledger.entries[*start..end];
        Socket {
            ready: entries[0].at,
            chat: find(entries, |seen| *seen == Seen::ChatSelected),
            ended: find(entries, |seen| matches!(seen, Seen::Closed(_))),
            entries,
        }
    });
    cut.collect()
}

impl Socket<'_> {
    /// Is this event owed to this socket?
    fn owed(&self, event: &Published) -> bool {
        let since = match event.subject.kind {
            Kind::Messages(_) => self.chat,
            Kind::Chats | Kind::Agents => Some(self.ready),
        };
        since.is_some_and(|since| event.started > since) && self.ended.is_none_or(|ended| event.stored < ended)
    }

    /// Does a gap on this socket cover this event?
    fn announced(&self, event: &Published, fault: Option<&FaultTime>) -> bool {
        self.entries.iter().any(|entry| match &entry.seen {
            Seen::Gap { range: Some((first, last)), .. } => (*first..=*last).contains(&event.seq),
            // A gap of unknown size is about what came between the begin of the fault and itself, not about anything ever lost.
            Seen::Gap { range: None, .. } => {
                event.started < entry.at && fault.is_none_or(|fault| event.started + IN_FLIGHT >= fault.began)
            }
            _ => false,
        })
    }

    /// Was this event on its way when the socket ended?
    fn went_along(&self, event: &Published, fault: Option<&FaultTime>) -> bool {
        let Some(ended) = self.ended else { return false };
        let since = match fault {
            Some(fault) if fault.stalls => ended.min(fault.began),
            _ => ended,
        };
        event.stored + IN_FLIGHT >= since
    }
}

impl Verdict {
    fn mistake(&mut self, what: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(what());
        }
    }

    /// Compares.
    #[must_use]
    pub fn of(evidence: &Evidence, fault: Option<FaultTime>) -> Self {
        let published: HashMap<u64, &Published> = evidence.published.iter().map(|event| (event.number, event)).collect();
        let mut verdict = Self {
            sessions: evidence.ledgers.len(),
            published: evidence.published.len(),
            rate: f64::INFINITY,
            ..Self::default()
        };
        let mut recovered = fault.map(|fault| fault.ended);
        for ledger in &evidence.ledgers {
            verdict.session(ledger, evidence, &published, fault.as_ref(), &mut recovered);
        }
        if let (Some(fault), Some(recovered)) = (fault, recovered) {
            verdict.recovery_ms = milliseconds(recovered - fault.ended);
        }
        verdict
    }

    fn session(
        &mut self,
        ledger: &Ledger,
        evidence: &Evidence,
        published: &HashMap<u64, &Published>,
        fault: Option<&FaultTime>,
        recovered: &mut Option<Instant>,
    ) {
        let name = ledger.who.name();
        let wanted: Vec<&Published> = evidence.published.iter().filter(|event| ledger.who.wants(&event.subject)).collect();
        let during = (evidence.ended - evidence.started).as_secs_f64();
        if matches!(ledger.who, Who::User { .. }) && during > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand events")]
            let rate = wanted.len() as f64 / during;
            self.rate = self.rate.min(rate);
        }
        let sockets = sockets(ledger);
        let mut ever: HashMap<u64, usize> = HashMap::new();
        for (turn, socket) in sockets.iter().enumerate() {
            let mut got: HashMap<u64, Instant> = HashMap::new();
            let mut by_subject: HashMap<&str, Vec<u64>> = HashMap::new();
            for entry in socket.entries {
                match &entry.seen {
                    Seen::Event { seq, number, subject } => {
                        self.deliveries += 1;
                        by_subject.entry(subject).or_default().push(*seq);
                        if got.insert(*number, entry.at).is_some() {
                            self.doubled += 1;
                            self.mistake(|| format!("{name}: event {number} (seq {seq}) came twice on one socket"));
                        } else if ever.insert(*number, turn).is_some() {
                            self.repeated += 1;
                        }
                        match published.get(number) {
                            Some(event)
                                if ledger.who.wants(&event.subject) && event.subject.text() == *subject && event.seq == *seq =>
                            {
                                if let Some(recovered) = recovered.as_mut().filter(|_| entry.at > event.stored + LATE) {
                                    *recovered = entry.at.max(*recovered);
                                }
                            }
                            _ => {
                                self.misdelivered += 1;
                                self.mistake(|| {
                                    format!("{name}: got event {number} (seq {seq}) of {subject}, which is not its own")
                                });
                            }
                        }
                    }
                    Seen::Gap { .. } => self.gaps += 1,
                    Seen::Closed(code) => *self.closes.entry(code.unwrap_or(0)).or_default() += 1,
                    Seen::Error(_) | Seen::Nonsense(_) => {
                        self.strange += 1;
                        self.mistake(|| format!("{name}: {:?}", entry.seen));
                    }
                    Seen::Ready(_) | Seen::ChatSelected => {}
                }
            }
            for event in wanted.iter().filter(|event| socket.owed(event) && !got.contains_key(&event.number)) {
                if socket.announced(event, fault) {
                    self.announced += 1;
                } else if socket.went_along(event, fault) {
                    self.with_socket += 1;
                } else {
                    self.lost += 1;
                    let after = event.stored.saturating_duration_since(evidence.started).as_secs_f64();
                    self.mistake(|| {
                        let (number, seq, subject) = (event.number, event.seq, event.subject.text());
                        format!("{name}: event {number} (seq {seq}, {subject}, stored {after:.3} s into the run) never came to its socket {turn}")
                    });
                }
            }
            self.order_depth = by_subject.values().map(|seqs| longest_fall(seqs)).max().unwrap_or(0).max(self.order_depth);
        }
        self.away += wanted.iter().filter(|event| !sockets.iter().any(|socket| socket.owed(event))).count();
        self.silence(ledger, evidence);
        if let Some((fault, recovered)) = fault.zip(recovered.as_mut()) {
            let back = sockets.iter().map(|socket| socket.ready).filter(|ready| *ready > fault.ended).max();
            *recovered = back.unwrap_or(*recovered).max(*recovered);
        }
    }

    /// Looks for the longest silence of a user's session between the begin and the end of publishing.
    fn silence(&mut self, ledger: &Ledger, evidence: &Evidence) {
        let replaced = ledger.entries.iter().any(|entry| entry.seen == Seen::Closed(Some(4402)));
        if replaced || !matches!(ledger.who, Who::User { .. }) {
            return;
        }
        let events = ledger.entries.iter().filter(|entry| matches!(entry.seen, Seen::Event { .. })).map(|entry| entry.at);
        let mut last = evidence.started;
        for at in events.chain([evidence.ended]) {
            let silence = milliseconds(at.min(evidence.ended).saturating_duration_since(last));
            self.worst_silence_ms = self.worst_silence_ms.max(silence);
            last = last.max(at);
        }
    }

    /// Nothing lost, doubled, misdelivered or strange.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.misdelivered + self.strange == 0
    }

    /// All in words, for a test that fails.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{self:#?}\n");
        for example in &self.examples {
            let _ = writeln!(text, "  {example}");
        }
        text
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The length of the longest subsequence of ever smaller numbers: by Dilworth, the least number of ascending sources that could have
/// been interleaved into this.
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
mod tests {
    use super::*;
    use crate::ledger::Subject;

    const STEP: Duration = Duration::from_millis(100);

    struct Story {
        start: Instant,
        published: Vec<Published>,
        entries: Vec<Entry>,
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
            let mut story = Self { start, published: (0..events).map(event).collect(), entries: Vec::new() };
            story.see(0, Seen::Ready("pod-a".into()));
            story
        }

        fn see(&mut self, step: u32, seen: Seen) {
            self.entries.push(Entry { at: self.start + STEP * step + STEP / 2, seen });
        }

        fn get(&mut self, numbers: &[u64]) {
            for number in numbers {
                let step = u32::try_from(*number).unwrap() + 1;
                self.see(step, Seen::Event { seq: number + 100, number: *number, subject: "wa.acme.a1.chats".into() });
            }
        }

        fn judge(self, fault: Option<(u32, u32)>) -> Verdict {
            let who = Who::User { company: "acme".into(), agent: "a1".into(), user: "u".into(), chat: None };
            let ended = self.start + STEP * 60;
            let fault = fault.map(|(began, end)| FaultTime {
                began: self.start + STEP * began,
                ended: self.start + STEP * end,
                stalls: true,
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
    fn interleaved_sources_fall_no_deeper_than_they_are_many() {
        assert_eq!(longest_fall(&[1, 2, 3]), 1);
        assert_eq!(longest_fall(&[10, 1, 11, 2, 12, 3]), 2);
        assert_eq!(longest_fall(&[3, 2, 1]), 3);
    }
}
