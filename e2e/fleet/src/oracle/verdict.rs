//! Compares what sessions saw with what was published.
//!
//! An event is owed to a socket when publishing it began after the socket was ready (for messages: after the chat was selected),
//! and the stream had it before the socket ended. One that is owed and did not come is
//!
//! - *announced*, when a gap on that socket covers it;
//! - *gone with its socket*, when the socket ended soon after: what was on its way to a client that is gone. The client knows, by
//!   the end. What comes with its next socket, as the session resumes, is none of these;
//! - *lost*, in every other case: silently.
//!
//! While a session moves, two sockets stand, and each is owed what it would be owed if it were alone. What both bring is repeated;
//! only what a socket brings twice is *doubled*, or what it brings although the cursor that it resumed from says that the session
//! had it.
//!
//! How late events were for sessions that a fault is not about, before it and during it, is the business of `lateness.rs`, and
//! how quiet it was while sessions moved that of `moves.rs`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    fault_time::FaultTime,
    lateness::{LATE, Lateness, milliseconds},
    moves::Moves,
    socket::{Socket, sockets},
};
use crate::{
    identity::Who,
    traffic::{
        evidence::Evidence,
        ledger::{Ledger, Published, Seen},
    },
};

/// Examples of each kind of mistake that a verdict keeps.
const EXAMPLES: usize = 12;
/// The close code of a socket whose session has moved.
const GOING_AWAY: u16 = 1001;

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
    /// Received twice on one socket, or again on one that resumed after it.
    pub doubled: usize,
    /// Received again by a session on another socket.
    pub repeated: usize,
    /// Received by a session that they do not concern, or never published.
    pub misdelivered: usize,
    /// Owed to a socket, and brought to the session's next one from the stream.
    #[serde(default)]
    pub resumed: usize,
    /// Missing, and announced by a gap.
    pub announced: usize,
    /// Gap frames.
    pub gaps: usize,
    /// Missing, on their way when their socket ended.
    pub with_socket: usize,
    /// Stored while the session they concern had no socket, and not brought to its next one.
    pub away: usize,
    /// Connects that a pod refused.
    #[serde(default)]
    pub refused: usize,
    /// Sockets that ended, by close code; 0 where there was no goodbye.
    pub closes: BTreeMap<u16, usize>,
    /// Those of them whose session had moved, and how quiet it was.
    #[serde(default)]
    pub moves: Moves,
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

/// A comparison under way.
struct Comparison<'a> {
    evidence: &'a Evidence,
    /// What was published, by number.
    published: HashMap<u64, &'a Published>,
    fault: Option<FaultTime>,
    /// When somebody was last late or without a socket, as far as is known; none without a fault.
    recovered: Option<Instant>,
    verdict: Verdict,
}

/// What one session was owed, and what it got over all its sockets.
struct Account<'a> {
    ledger: &'a Ledger,
    name: String,
    wanted: Vec<&'a Published>,
    /// Events that it got on any socket so far.
    got: HashSet<u64>,
    /// The last of its sockets on which an event came.
    last: HashMap<u64, usize>,
}

impl Comparison<'_> {
    fn mistake(&mut self, what: impl FnOnce() -> String) {
        if self.verdict.examples.len() < EXAMPLES {
            self.verdict.examples.push(what());
        }
    }

    fn session(&mut self, ledger: &Ledger) {
        let evidence = self.evidence;
        let wanted: Vec<&Published> = evidence.published.iter().filter(|event| ledger.who.wants(&event.subject)).collect();
        let sockets = sockets(ledger);
        let since = sockets.first().map_or(evidence.started, |socket| socket.ready.max(evidence.started));
        let during = evidence.ended.saturating_duration_since(since).as_secs_f64();
        if matches!(ledger.who, Who::User { .. }) && during > 0.0 {
            let here = wanted.iter().filter(|event| event.started >= since).count();
            self.verdict.rate = self.verdict.rate.min(share(here, during));
        }
        let mut account = Account { ledger, name: ledger.who.name(), wanted, got: HashSet::new(), last: last_sockets(&sockets) };
        for (turn, socket) in sockets.iter().enumerate() {
            let got = self.socket(&mut account, socket);
            self.missing(&account, turn, socket, &got);
        }
        // What was stored before a session came for the first time is not its own business; what came with its next socket it
        // has.
        let away = |event: &&&Published| {
            event.started >= since && !sockets.iter().any(|socket| socket.owed(event)) && !account.got.contains(&event.number)
        };
        self.verdict.away += account.wanted.iter().filter(away).count();
        self.verdict.refused += ledger.entries.iter().filter(|entry| matches!(entry.seen, Seen::Refused(_))).count();
        self.silence(ledger, since);
        if let Some((fault, recovered)) = self.fault.zip(self.recovered.as_mut()) {
            let back = sockets.iter().map(|socket| socket.ready).filter(|ready| *ready > fault.ended).max();
            *recovered = back.unwrap_or(*recovered).max(*recovered);
        }
    }

    /// Goes through what a socket saw, and returns the numbers of the events among it.
    fn socket(&mut self, account: &mut Account<'_>, socket: &Socket<'_>) -> HashSet<u64> {
        let mut got = HashSet::new();
        let mut by_subject: HashMap<&str, Vec<u64>> = HashMap::new();
        for entry in &socket.entries {
            match &entry.seen {
                Seen::Event { seq, number, subject } => {
                    self.verdict.deliveries += 1;
                    by_subject.entry(subject).or_default().push(*seq);
                    if !got.insert(*number) {
                        self.verdict.doubled += 1;
                        self.mistake(|| format!("{}: event {number} (seq {seq}) came twice on one socket", account.name));
                    } else if account.got.insert(*number) {
                        // The first time.
                    } else if socket.resumed.is_some_and(|cursor| *seq <= cursor) {
                        self.verdict.doubled += 1;
                        self.mistake(|| format!("{}: event {number} (seq {seq}) came again, before the cursor", account.name));
                    } else {
                        self.verdict.repeated += 1;
                    }
                    self.belongs(account, entry.at, *number, *seq, subject);
                }
                Seen::Gap { .. } => self.verdict.gaps += 1,
                Seen::Closed(code) => *self.verdict.closes.entry(code.unwrap_or(0)).or_default() += 1,
                Seen::Moved => *self.verdict.closes.entry(GOING_AWAY).or_default() += 1,
                Seen::Error(_) | Seen::Nonsense(_) => {
                    self.verdict.strange += 1;
                    self.mistake(|| format!("{}: {:?}", account.name, entry.seen));
                }
                Seen::Ready(_) | Seen::Resumed(_) | Seen::ChatSelected | Seen::Asked | Seen::Refused(_) => {}
            }
        }
        let depth = by_subject.values().map(|seqs| longest_fall(seqs)).max().unwrap_or(0);
        self.verdict.order_depth = self.verdict.order_depth.max(depth);
        got
    }

    /// Is an event that came at this time one that the session may get? If it is, and came late, nobody had recovered before.
    fn belongs(&mut self, account: &Account<'_>, at: Instant, number: u64, seq: u64, subject: &str) {
        let event = self
            .published
            .get(&number)
            .copied()
            .filter(|event| account.ledger.who.wants(&event.subject) && event.subject.text() == subject && event.seq == seq);
        let Some(event) = event else {
            self.verdict.misdelivered += 1;
            self.mistake(|| format!("{}: got event {number} (seq {seq}) of {subject}, which is not its own", account.name));
            return;
        };
        if let Some(recovered) = self.recovered.as_mut().filter(|_| at > event.stored + LATE) {
            *recovered = at.max(*recovered);
        }
    }

    /// Sorts the events that were owed to a socket and did not come.
    fn missing(&mut self, account: &Account<'_>, turn: usize, socket: &Socket<'_>, got: &HashSet<u64>) {
        let fault = self.fault;
        for event in account.wanted.iter().filter(|event| socket.owed(event) && !got.contains(&event.number)) {
            if account.last.get(&event.number).is_some_and(|last| *last > turn) {
                self.verdict.resumed += 1;
            } else if socket.announced(event, fault.as_ref()) {
                self.verdict.announced += 1;
            } else if socket.went_along(event, fault.as_ref()) {
                self.verdict.with_socket += 1;
            } else {
                self.verdict.lost += 1;
                let after = event.stored.saturating_duration_since(self.evidence.started).as_secs_f64();
                self.mistake(|| {
                    let (name, number, seq, subject) = (&account.name, event.number, event.seq, event.subject.text());
                    let stored = format!("seq {seq}, {subject}, stored {after:.3} s into the run");
                    format!("{name}: event {number} ({stored}) never came to its socket {turn}")
                });
            }
        }
    }

    /// Looks for the longest silence of a user's session between the begin and the end of publishing.
    fn silence(&mut self, ledger: &Ledger, since: Instant) {
        let replaced = ledger.entries.iter().any(|entry| entry.seen == Seen::Closed(Some(4402)));
        if replaced || !matches!(ledger.who, Who::User { .. }) {
            return;
        }
        let ended = self.evidence.ended;
        let events = ledger.entries.iter().filter(|entry| matches!(entry.seen, Seen::Event { .. })).map(|entry| entry.at);
        let mut last = since;
        for at in events.chain([ended]) {
            let silence = milliseconds(at.min(ended).saturating_duration_since(last));
            self.verdict.worst_silence_ms = self.verdict.worst_silence_ms.max(silence);
            last = last.max(at);
        }
    }
}

impl Verdict {
    /// Compares.
    #[must_use]
    pub fn of(evidence: &Evidence, fault: Option<FaultTime>) -> Self {
        let during = (evidence.ended - evidence.started).as_secs_f64();
        let verdict = Self {
            sessions: evidence.ledgers.len(),
            published: evidence.published.len(),
            rate: f64::INFINITY,
            moves: Moves::of(evidence),
            stored_rate: if during > 0.0 { share(evidence.published.len(), during) } else { 0.0 },
            ..Self::default()
        };
        let published = evidence.published.iter().map(|event| (event.number, event)).collect();
        let recovered = fault.map(|fault| fault.ended);
        let mut comparison = Comparison { evidence, published, fault, recovered, verdict };
        for ledger in &evidence.ledgers {
            comparison.session(ledger);
        }
        let Comparison { published, recovered, mut verdict, .. } = comparison;
        if let (Some(fault), Some(recovered)) = (fault, recovered) {
            verdict.recovery_ms = milliseconds(recovered - fault.ended);
            verdict.others = Lateness::of(evidence, &published, &fault);
        }
        verdict
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

/// The last socket on which each event came, by its number.
fn last_sockets(sockets: &[Socket<'_>]) -> HashMap<u64, usize> {
    let mut last = HashMap::new();
    for (turn, socket) in sockets.iter().enumerate() {
        for entry in &socket.entries {
            if let Seen::Event { number, .. } = &entry.seen {
                last.insert(*number, turn);
            }
        }
    }
    last
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred thousand events")]
fn share(events: usize, seconds: f64) -> f64 {
    events as f64 / seconds
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
