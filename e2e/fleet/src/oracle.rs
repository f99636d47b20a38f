//! Compares what sessions saw with what was published.
//!
//! An event is owed to a socket when publishing it began after the socket was ready (for messages: after the chat was selected), and the stream
//! had it before the socket ended. One that is owed and did not come is
//!
//! - *announced*, when a gap on that socket covers it;
//! - *gone with its socket*, when the socket ended soon after: what was on its way to a client that is gone. The client knows, by the end;
//! - *lost*, in every other case: silently.
//!
//! How late events were for sessions that a fault is not about, before it and during it, is the business of `lateness.rs`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::lateness::Lateness;
use crate::traffic::{
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
    /// The index of the pod that it befell, where it befell one alone.
    pub pod: Option<usize>,
}

impl FaultTime {
    /// The same, and it befell this pod alone.
    #[must_use]
    pub fn at(mut self, pod: usize) -> Self {
        self.pod = Some(pod);
        self
    }
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
    /// Events stored a second, in all.
    #[serde(default)]
    pub stored_rate: f64,
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
    /// Stored while the session they concern had no socket, and not brought to its next one.
    pub away: usize,
    /// Sockets that ended, by close code; 0 where there was no goodbye.
    pub closes: BTreeMap<u16, usize>,
    /// The longest run of ever smaller sequences of one subject in one socket: as many sources, or a source out of order.
    pub order_depth: usize,
    /// The longest that any session saw nothing while events for it were published, in milliseconds.
    pub worst_silence_ms: u64,
    /// From the end of the fault until nothing was late any more and everybody had a socket, in milliseconds.
    pub recovery_ms: u64,
    /// How late events were for the sessions that the fault did not befall.
    #[serde(default)]
    pub others: Lateness,
    /// `error` frames and frames that nobody should get.
    pub strange: usize,
    /// Some of the mistakes, in words.
    pub examples: Vec<String>,
}

/// One socket of a session.
struct Socket<'a> {
    pod: &'a str,
    ready: Instant,
    chat: Option<Instant>,
    ended: Option<Instant>,
    entries: &'a [Entry],
    gaps: Vec<&'a Entry>,
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
            pod: if let Seen::Ready(pod) = &entries[0].seen { pod } else { "" },
            ready: entries[0].at,
            chat: find(entries, |seen| *seen == Seen::ChatSelected),
            ended: find(entries, |seen| matches!(seen, Seen::Closed(_))),
            entries,
            gaps: entries.iter().filter(|entry| matches!(entry.seen, Seen::Gap { .. })).collect(),
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
        self.gaps.iter().any(|entry| match &entry.seen {
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
        let during = (evidence.ended - evidence.started).as_secs_f64();
        if during > 0.0 {
            verdict.stored_rate = share(evidence.published.len(), during);
        }
        let mut recovered = fault.map(|fault| fault.ended);
        for ledger in &evidence.ledgers {
            verdict.session(ledger, evidence, &published, fault.as_ref(), &mut recovered);
        }
        if let (Some(fault), Some(recovered)) = (fault, recovered) {
            verdict.recovery_ms = milliseconds(recovered - fault.ended);
            verdict.others = Lateness::of(evidence, &published, &fault);
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
        let sockets = sockets(ledger);
        let since = sockets.first().map_or(evidence.started, |socket| socket.ready.max(evidence.started));
        let during = evidence.ended.saturating_duration_since(since).as_secs_f64();
        if matches!(ledger.who, Who::User { .. }) && during > 0.0 {
            let here = wanted.iter().filter(|event| event.started >= since).count();
            self.rate = self.rate.min(share(here, during));
        }
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
        // What was stored before a session came for the first time is not its own business; what came with its next socket it has.
        let away = |event: &&&Published| {
            event.started >= since && !sockets.iter().any(|socket| socket.owed(event)) && !ever.contains_key(&event.number)
        };
        self.away += wanted.iter().filter(away).count();
        self.silence(ledger, since, evidence);
        if let Some((fault, recovered)) = fault.zip(recovered.as_mut()) {
            let back = sockets.iter().map(|socket| socket.ready).filter(|ready| *ready > fault.ended).max();
            *recovered = back.unwrap_or(*recovered).max(*recovered);
        }
    }

    /// Looks for the longest silence of a user's session between the begin and the end of publishing.
    fn silence(&mut self, ledger: &Ledger, since: Instant, evidence: &Evidence) {
        let replaced = ledger.entries.iter().any(|entry| entry.seen == Seen::Closed(Some(4402)));
        if replaced || !matches!(ledger.who, Who::User { .. }) {
            return;
        }
        let events = ledger.entries.iter().filter(|entry| matches!(entry.seen, Seen::Event { .. })).map(|entry| entry.at);
        let mut last = since;
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

#[expect(clippy::cast_precision_loss, reason = "a few hundred thousand events")]
fn share(events: usize, seconds: f64) -> f64 {
    events as f64 / seconds
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

mod lateness;
#[cfg(test)]
mod tests;
